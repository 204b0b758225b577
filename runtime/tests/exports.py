"""A folder as `anomalib-lamp export` writes it, with a model that finds dark spots.

Its results can be worked out by hand: its map is one less the mean of the channels, resized to 8 x 8, its score the
highest value, its raw score twice that.
"""

import json

import numpy as np
import onnx
from anomalib_lamp_runtime.export_folder import FORMAT_VERSION, sha256
from onnx import TensorProto, helper
from PIL import Image

SIDE = 8
BACKGROUND, MARK = 200, 20


def draw_part(width=64, height=48, mark=None):
    """Return a bright photograph with a dark mark: left, top, right, bottom."""
    image = Image.new("RGB", (width, height), (BACKGROUND,) * 3)
    if mark:
        image.paste((MARK,) * 3, mark)
    return image


def write_export(folder):
    """Write the folder with two golden samples, one of them anomalous, and return it."""
    (folder / "golden").mkdir(parents=True)
    onnx.save(make_model(), folder / "model.onnx")
    for name, image in {"good.png": draw_part(), "bad.png": draw_part(mark=(16, 12, 32, 24))}.items():
        image.save(folder / "golden" / name)
        score = 1 - (MARK if name == "bad.png" else BACKGROUND) / 255
        anomaly_map = np.full((SIDE, SIDE), 1 - BACKGROUND / 255, np.float32)
        if name == "bad.png":
            anomaly_map[2:4, 2:4] = score
        expected = {"score": score, "raw_score": 2 * score, "anomalous": score > 0.5, "anomaly_map": anomaly_map}
        np.savez(folder / "golden" / f"{name}.npz", **expected)
    thresholds = {level: {"raw": 1.0, "normalised": 0.5} for level in ("image", "pixel")}
    files = {"onnx": {"model.onnx": sha256((folder / "model.onnx").read_bytes())}}
    metadata = {"format_version": FORMAT_VERSION, "threshold": thresholds, "files": files}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    return folder


def make_model():
    """Return the ONNX model."""
    nodes = [
        helper.make_node("ReduceMean", ["input", "channel"], ["mean"]),
        helper.make_node("Sub", ["one", "mean"], ["dark"]),
        helper.make_node("Resize", ["dark", "", "", "sizes"], ["anomaly_map"], mode="nearest"),
        helper.make_node("ReduceMax", ["anomaly_map", "pixels"], ["pred_score"], keepdims=0),
        helper.make_node("Mul", ["two", "pred_score"], ["raw_score"]),
    ]
    constants = {
        "channel": np.array([1]),
        "one": np.float32(1),
        "sizes": np.array([1, 1, SIDE, SIDE]),
        "pixels": np.array([2, 3]),
        "two": np.float32(2),
    }
    shapes = {"anomaly_map": [1, 1, SIDE, SIDE], "pred_score": [1, 1], "raw_score": [1, 1]}
    graph = helper.make_graph(
        nodes,
        "darkness",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
