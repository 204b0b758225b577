"""Runs exported models: ONNX Runtime or OpenVINO."""

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import TypeAlias

import numpy as np

Backend: TypeAlias = Callable[[np.ndarray], dict[str, np.ndarray]]


def load_onnx(path: Path, threads: int | None) -> Backend:
    """Return a function from images (1, 3, H, W) in [0, 1] to a model's outputs by name.

    Args:
        path: The ONNX file.
        threads: Number of threads; ``None`` for all cores.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {image.name: images}), strict=True))


def load_openvino(path: Path, threads: int | None) -> Backend:
    """Return the same as :func:`load_onnx` for OpenVINO, in float32, without a cache on disk."""
    try:
        import openvino
    except ModuleNotFoundError as error:
        msg = "The backend 'openvino' needs OpenVINO, which is not installed: pip install openvino"
        raise ModuleNotFoundError(msg, name="openvino") from error
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = str(threads)
    model = openvino.Core().compile_model(path, "CPU", options)
    one_at_a_time = Lock()  # a compiled model that is busy raises an error

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        with one_at_a_time:
            return {output.any_name: value for output, value in model(images).items()}

    return predict


BACKENDS: dict[str, Callable[[Path, int | None], Backend]] = {"onnx": load_onnx, "openvino": load_openvino}
