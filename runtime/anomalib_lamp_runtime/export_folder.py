"""The folder that `anomalib-lamp export` writes: its metadata, checked, and its golden samples."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from anomalib_lamp_runtime.errors import ExportError

FORMAT_VERSION = 1
METADATA = "metadata.json"
GOLDEN = "golden"
MODEL_FILES = {"onnx": "model.onnx", "openvino": "model.xml"}


@dataclass(frozen=True)
class GoldenSample:
    """A photograph and what the model predicted for it before it was exported.

    Attributes:
        photograph: The file.
        score: Normalised score.
        raw_score: Score before the normalisation.
        anomalous: Label.
        anomaly_map: Normalised map (h, w).
    """

    photograph: Path
    score: float
    raw_score: float
    anomalous: bool
    anomaly_map: np.ndarray


class ExportFolder:
    """An exported model.

    ``metadata.json`` holds

    - ``format_version``: a whole number;
    - ``model``, ``classes`` (``["normal", "anomalous"]``) and ``image_size``: height and width of the anomaly map;
    - ``threshold``: ``{"image": {"raw", "normalised"}, "pixel": {"raw", "normalised"}}``;
    - ``normalisation``: class and numbers of the post-processor, which is part of the model files;
    - ``files``: for ``onnx`` and, if exported, ``openvino``: SHA-256 by name of file;
    - ``versions``: of packages at export;
    - ``reference``: lists ``score``, ``raw_score``, ``brightness`` and ``sharpness`` of normal photographs, one value
      for each photograph.

    Args:
        path: The folder.

    Raises:
        ExportError: If there is no metadata in it, incomplete one, or that of another version.

    Attributes:
        path: The folder.
        metadata: What ``metadata.json`` holds.
        threshold: Threshold of the normalised score.
        pixel_threshold: Threshold of the normalised map.
        files: For every format, SHA-256 by name of file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.metadata = _read_metadata(self.path / METADATA)
        try:
            thresholds = self.metadata["threshold"]
            self.threshold = float(thresholds["image"]["normalised"])
            self.pixel_threshold = float(thresholds["pixel"]["normalised"])
            self.files = {backend: dict(hashes) for backend, hashes in self.metadata["files"].items()}
            names = [name for hashes in self.files.values() for name in hashes]
            if not names or any(Path(name).name != name for name in names):
                msg = f"expected names of files in the folder, got {names}"
                raise ValueError(msg)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            msg = (
                f"Expected complete metadata in {self.path / METADATA} ({type(error).__name__}: {error}). "
                "Export the model again or copy the whole folder."
            )
            raise ExportError(msg) from error

    def model_file(self, backend: str) -> Path:
        """Return the model file of a backend, after its SHA-256 and those of the files beside it were checked.

        Args:
            backend: ``onnx`` or ``openvino``.

        Raises:
            ExportError: If the format was not exported, or a file is missing or was altered.
        """
        if MODEL_FILES.get(backend) not in self.files.get(backend, {}):
            msg = (
                f"Expected one of the formats in {self.path}: {', '.join(self.files)}, got {backend!r}. "
                "Export it: anomalib-lamp export --openvino."
            )
            raise ExportError(msg)
        for name, expected in self.files[backend].items():
            self._check(self.path / name, expected)
        return self.path / MODEL_FILES[backend]

    @staticmethod
    def _check(file: Path, expected: str) -> None:
        try:
            with file.open("rb") as content:
                digest = sha256(content.read())
        except OSError as error:
            msg = f"Expected the model file {file}, got {type(error).__name__}: {error}. Copy the whole folder again."
            raise ExportError(msg) from error
        if digest != expected:
            msg = (
                f"Expected {file} with SHA-256 {expected}, got {digest}: the file was altered or damaged. "
                "Copy the whole folder again."
            )
            raise ExportError(msg)

    def golden_samples(self) -> Iterator[GoldenSample]:
        """Return the golden samples.

        Raises:
            ExportError: If there are none, or one cannot be read.
        """
        expected = sorted((self.path / GOLDEN).glob("*.npz"))
        if not expected:
            msg = f"Expected golden samples in {self.path / GOLDEN}, got none. Copy the whole folder again."
            raise ExportError(msg)
        for file in expected:
            yield _read_golden_sample(file)


def _read_golden_sample(file: Path) -> GoldenSample:
    try:
        with np.load(file) as values:
            return GoldenSample(
                photograph=file.with_suffix(""),
                score=float(values["score"]),
                raw_score=float(values["raw_score"]),
                anomalous=bool(values["anomalous"]),
                anomaly_map=values["anomaly_map"],
            )
    except (BadZipFile, KeyError, OSError, TypeError, ValueError) as error:
        msg = f"Expected a golden sample in {file}, got {type(error).__name__}: {error}. Copy the whole folder again."
        raise ExportError(msg) from error


def sha256(content: bytes) -> str:
    """Return a SHA-256 as it stands in the metadata.

    Example:
        >>> sha256(b"")[:8]
        'e3b0c442'
    """
    return hashlib.sha256(content).hexdigest()


def _read_metadata(file: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = (
            f"Expected a folder made by `anomalib-lamp export` with a readable {METADATA}, got {file.parent} "
            f"({type(error).__name__}: {error}). Export the model again or copy the whole folder."
        )
        raise ExportError(msg) from error
    version = metadata.get("format_version") if isinstance(metadata, dict) else None
    if version != FORMAT_VERSION:
        msg = (
            f"Expected format version {FORMAT_VERSION}, got {version} in {file}. "
            "Install the anomalib-lamp-runtime that belongs to the anomalib-lamp that exported it, or export it again."
        )
        raise ExportError(msg)
    return metadata
