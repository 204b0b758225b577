"""Inspects photographs with an exported model."""

from pathlib import Path

import numpy as np

from anomalib_lamp_runtime.backends import BACKENDS, Backend
from anomalib_lamp_runtime.errors import ExportError, InspectionError
from anomalib_lamp_runtime.export_folder import ExportFolder
from anomalib_lamp_runtime.inspection import Inspection
from anomalib_lamp_runtime.photographs import MAX_PIXELS, Photograph, as_input, measure, read_photograph
from anomalib_lamp_runtime.regions import find_regions


class Inspector:
    """Inspects photographs with an exported model. It can be called from several threads at once.

    Args:
        folder: What ``anomalib-lamp export`` wrote.
        threshold: Normalised score, in [0, 1], from which on a photograph is anomalous; ``None`` for that of the
            training, 0.5 unless its sensitivity was changed.
        backend: ``onnx`` or ``openvino``.
        threads: Number of threads; ``None`` for all cores.
        max_pixels: Most pixels that a photograph may have.

    Raises:
        ExportError: If the folder is not a complete, unaltered export of this version.
        ValueError: If the threshold or the backend is none.
        ModuleNotFoundError: If the backend is not installed.

    Example:
        >>> inspector = Inspector("exported")  # doctest: +SKIP
        >>> inspector("part.png").score  # doctest: +SKIP
        0.31
    """

    def __init__(
        self,
        folder: str | Path,
        threshold: float | None = None,
        backend: str = "onnx",
        threads: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if threshold is not None and not 0 <= threshold <= 1:
            msg = f"Expected a threshold of the normalised score in [0, 1], got {threshold}."
            raise ValueError(msg)
        if backend not in BACKENDS:
            msg = f"Expected one of the backends {', '.join(BACKENDS)}, got {backend!r}."
            raise ValueError(msg)
        self.export = ExportFolder(folder)
        self.threshold = self.export.threshold if threshold is None else threshold
        self.max_pixels = max_pixels
        self._predict = _load(backend, self.export.model_file(backend), threads)

    def __call__(self, photograph: Photograph) -> Inspection:
        """Inspect a photograph.

        Args:
            photograph: A file, a PIL image, or an RGB array (H, W, 3) of uint8 (OpenCV's are in the order BGR).

        Raises:
            InspectionError: If it cannot be read or is too large, or if the model gives no finite score or map.
        """
        image = read_photograph(photograph, self.max_pixels)
        outputs = self._predict(as_input(image))
        score, raw_score = (float(outputs[name].squeeze()) for name in ("pred_score", "raw_score"))
        anomaly_map = np.asarray(outputs["anomaly_map"], dtype=np.float32)[0, 0]
        if not (np.isfinite(score) and np.isfinite(anomaly_map).all()):  # NaN exceeds no threshold
            msg = f"Expected a finite score and map, got score {score}. Run `anomalib-lamp-runtime check`."
            raise InspectionError(msg)
        brightness, sharpness = measure(image)
        return Inspection(
            score=score,
            raw_score=raw_score,
            threshold=self.threshold,
            anomalous=score > self.threshold,
            anomaly_map=anomaly_map,
            regions=find_regions(anomaly_map, self.export.pixel_threshold, image.size),
            brightness=brightness,
            sharpness=sharpness,
        )


def _load(backend: str, file: Path, threads: int | None) -> Backend:
    try:
        return BACKENDS[backend](file, threads)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # the libraries raise errors of their own types
        msg = (
            f"Expected a model that the installed {backend} library reads, got {file} ({error}). "
            "Upgrade the library, or export the model again."
        )
        raise ExportError(msg) from error
