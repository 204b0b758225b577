"""Writes the ONNX and OpenVINO files of a model, with the raw score as one more output."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from anomalib.data import InferenceBatch
from anomalib.models import AnomalibModule
from anomalib_lamp_runtime.export_folder import MODEL_FILES, sha256
from torch import Tensor, nn

from anomalib_lamp.models.host import require_package

from .predictions import raw_score


class Outputs(NamedTuple):
    """Outputs of an exported model: anomalib's, and the score before the normalisation."""

    pred_score: Tensor
    pred_label: Tensor
    anomaly_map: Tensor
    pred_mask: Tensor
    raw_score: Tensor


class WithRawScore(nn.Module):
    """Post-processing that also returns the score that it was given.

    Args:
        post_processor: anomalib's post-processor.
    """

    def __init__(self, post_processor: nn.Module) -> None:
        super().__init__()
        self.post_processor = post_processor

    def forward(self, predictions: InferenceBatch) -> Outputs:
        """Post-process predictions."""
        return Outputs(**self.post_processor(predictions)._asdict(), raw_score=raw_score(predictions))


def write_model_files(folder: Path, model: AnomalibModule, openvino: bool) -> dict[str, dict[str, str]]:
    """Write model files to a folder.

    Args:
        folder: The folder.
        model: The model.
        openvino: Whether to write OpenVINO files as well.

    Returns:
        SHA-256 of every file by its name, by ``onnx`` and ``openvino``.
    """
    onnx = folder / MODEL_FILES["onnx"]
    with _raw_score_too(model), tempfile.TemporaryDirectory() as temporary:
        written = model.to_onnx(temporary, opset_version=18, external_data=False, verbose=False)
        onnx.write_bytes(written.read_bytes())
    files = {"onnx": _hashes([onnx])}
    if openvino:
        files["openvino"] = _hashes(_write_openvino(onnx, folder / MODEL_FILES["openvino"]))
    return files


def require_packages(openvino: bool) -> None:
    """Raise ModuleNotFoundError unless the packages are installed that write the files."""
    for name in ("onnx", "onnxscript"):
        require_package(name, "ONNX")
    if openvino:
        require_package("openvino", "OpenVINO")


@contextmanager
def _raw_score_too(model: AnomalibModule) -> Iterator[None]:
    post_processor = model.post_processor
    model.post_processor = WithRawScore(post_processor)  # type: ignore[arg-type]
    try:
        yield
    finally:
        model.post_processor = post_processor


def _write_openvino(onnx: Path, file: Path) -> list[Path]:
    """Convert an ONNX file as anomalib does and return the files."""
    import openvino

    openvino.save_model(openvino.convert_model(onnx), file, compress_to_fp16=False)
    return [file, file.with_suffix(".bin")]


def _hashes(files: list[Path]) -> dict[str, str]:
    return {file.name: sha256(file.read_bytes()) for file in files}
