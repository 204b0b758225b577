"""Measures the start-up cost of the hook, the agreement of the losses, the gain of bfloat16, the parity of the exports.

python benchmarks/plugin_checks.py benchmarks/results/plugin_checks.json      (a minute or two on two cores)
"""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from anomalib.data import PredictDataset
from anomalib.deploy import ExportType, OpenVINOInferencer
from anomalib.engine import Engine
from jsonargparse import auto_cli
from PIL import Image
from skimage.metrics import structural_similarity
from torchvision.transforms.v2.functional import to_dtype, to_image

from anomalib_lamp import LampAE, LampLoss, SyntheticParts
from anomalib_lamp.compare.environment import describe_run
from anomalib_lamp.functional import amplify, reconstruction_error
from anomalib_lamp.models.lamp_ae import LampAEModel


def main(out: Path) -> None:
    """Write all figures to a JSON file.

    Args:
        out: Result file.
    """
    out = out.resolve()
    result = {
        **describe_run(),
        "hook_start_up_ms": start_up_cost(),
        "largest_difference_from_reference": loss_agreement(),
        "training_step_seconds": step_times(),
        "largest_export_difference_on_900x900": export_parity(),
    }
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(out.read_text())


def start_up_cost(repeats: int = 50) -> dict[str, float]:
    """Return milliseconds that the hook takes in fresh interpreters that never import anomalib.

    With -S nothing else is loaded; site imports os at every ordinary start, so os is not charged to the hook.
    """
    code = (
        "import os, sys, time; sys.path.append(sys.argv[1]); started = time.perf_counter()\n"
        "import _anomalib_lamp_startup; _anomalib_lamp_startup.install()\n"
        "print((time.perf_counter() - started) * 1000)"
    )
    installed = importlib.util.find_spec("_anomalib_lamp_startup").origin
    command = [sys.executable, "-S", "-c", code, str(Path(installed).parent)]
    times = [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(repeats + 1)][1:]
    low, median, high = (float(np.percentile(times, percent)) for percent in (5, 50, 95))
    return {"median": round(median, 3), "p5": round(low, 3), "p95": round(high, 3), "runs": repeats}


def loss_agreement() -> dict[str, float]:
    """Return the largest differences from independent references, over 20 random draws each."""
    rng = torch.Generator().manual_seed(0)
    draws = [(torch.rand(3, 64, 64, generator=rng), torch.rand(3, 64, 64, generator=rng)) for _ in range(20)]
    largest = dict.fromkeys(("ssim_map_vs_scikit_image", "amplify_vs_numpy_float64", "lamp_l1_vs_bce_relative"), 0.0)
    for x, noise in draws:
        y = 0.7 * x + 0.3 * noise
        _, ssim = structural_similarity(
            x.numpy(),
            y.numpy(),
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            full=True,
        )
        ours = reconstruction_error(x[None], y[None], "ssim")[0].numpy()
        inside = np.s_[:, 5:-5, 5:-5]
        error = noise.double() * (1 - 1e-6)
        binary, probability = x.round(), noise * 0.98 + 0.01
        bce = torch.nn.functional.binary_cross_entropy(probability, binary, reduction="sum")
        for name, difference in {
            "ssim_map_vs_scikit_image": np.abs(ours - (1 - ssim) / 2)[inside].max(),
            "amplify_vs_numpy_float64": np.abs(
                amplify(error.float()).numpy() + np.log1p(-error.float().double().numpy())
            ).max(),
            "lamp_l1_vs_bce_relative": abs(LampLoss("l1")(probability[None], binary[None]) / bce - 1),
        }.items():
            largest[name] = max(largest[name], float(difference))
    return {name: float(f"{value:.2g}") for name, value in largest.items()}


def step_times(repeats: int = 3) -> dict[str, float]:
    """Return the median time of a training step of 32 images of 256 x 256 in float32 and in bfloat16, and the ratio."""
    model, loss, images = LampAEModel(), LampLoss("ssim"), torch.rand(32, 3, 256, 256)
    optimizer = torch.optim.Adam(model.parameters())

    def step(half: bool) -> float:
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            value = loss(model(images), images)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return time.perf_counter() - started

    times = {name: [step(half) for _ in range(repeats + 1)][1:] for name, half in (("float32", False), ("bf16", True))}
    median = {name: statistics.median(values) for name, values in times.items()}
    return {
        **{name: round(value, 3) for name, value in median.items()},
        "ratio": round(median["float32"] / median["bf16"], 2),
    }


def export_parity() -> dict[str, dict[str, float]]:
    """Return the largest difference of scores and maps between Engine and export, per architecture and backend."""
    import onnxruntime

    architectures = {
        "autoencoder": {"architecture": "autoencoder"},
        "unet": {"architecture": "unet", "calibration": "location"},
        "unet without skips": {"architecture": "unet", "skip_connections": False},
    }
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)  # anomalib's OpenVINO inferencer leaves its cache in the working directory
        parts = {"root": folder / "parts", "size": 128, "num_train": 16, "num_test_good": 8}
        SyntheticParts(**parts).prepare_data()
        photograph = folder / "photograph.png"
        part = next((folder / "parts").rglob("test/scratch/*.png"))
        Image.open(part).resize((900, 900), Image.Resampling.LANCZOS).save(photograph)
        image = to_dtype(to_image(Image.open(photograph)), torch.float32, scale=True)[None]
        for label, arguments in architectures.items():
            model = LampAE(**arguments, max_steps=20, seed=0, visualizer=False)
            Engine(accelerator="cpu", default_root_dir=folder).fit(model, datamodule=SyntheticParts(**parts))
            trainer = Engine(accelerator="cpu", default_root_dir=folder)
            expected = trainer.predict(model, dataset=PredictDataset(photograph), return_predictions=True)[0]
            engine = Engine(accelerator="cpu", default_root_dir=folder)
            paths = {kind: engine.export(model, kind, folder / label) for kind in ExportType}
            with torch.inference_mode():
                as_torch = torch.load(paths[ExportType.TORCH], weights_only=False)["model"].eval()(image)
            session = onnxruntime.InferenceSession(paths[ExportType.ONNX])
            outputs = [output.name for output in session.get_outputs()]
            as_onnx = dict(zip(outputs, session.run(None, {"input": image.numpy()}), strict=True))
            inferencer = OpenVINOInferencer(paths[ExportType.OPENVINO], config={"INFERENCE_PRECISION_HINT": "f32"})
            as_openvino = inferencer.predict(photograph)
            figures[label] = {
                backend: float(f"{largest_difference(expected, score, anomaly_map):.2g}")
                for backend, score, anomaly_map in (
                    ("torch", as_torch.pred_score, as_torch.anomaly_map),
                    ("onnx", as_onnx["pred_score"], as_onnx["anomaly_map"]),
                    ("openvino", as_openvino.pred_score, as_openvino.anomaly_map),
                )
            }
    return figures


def largest_difference(expected: object, score: object, anomaly_map: object) -> float:
    """Return the larger of the differences in score and in any pixel of the map."""
    return max(
        (torch.as_tensor(value).squeeze() - reference.squeeze()).abs().max().item()
        for value, reference in ((score, expected.pred_score), (anomaly_map, expected.anomaly_map))
    )


if __name__ == "__main__":
    auto_cli(main)
