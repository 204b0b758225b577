"""What is written beside exported model files: thresholds, normalisation, reference, versions."""

from collections.abc import Sequence
from typing import Any

from anomalib.models import AnomalibModule
from anomalib_lamp_runtime.export_folder import FORMAT_VERSION
from anomalib_lamp_runtime.photographs import measure, read_photograph

from anomalib_lamp.compare.environment import describe_run

from .predictions import Prediction

NORMALISATION = ("image_min", "image_max", "pixel_min", "pixel_max")


def describe_export(
    model: AnomalibModule, files: dict[str, dict[str, str]], reference: dict[str, list[float]]
) -> dict[str, Any]:
    """Return the metadata of an export; the runtime's ``ExportFolder`` explains them.

    Args:
        model: The model.
        files: SHA-256 of the model files.
        reference: What was measured on normal photographs.
    """
    processor = model.post_processor
    return {
        "format_version": FORMAT_VERSION,
        "model": type(model).__name__,
        "classes": ["normal", "anomalous"],
        "image_size": model.input_size,
        "threshold": {
            level: {
                "raw": getattr(processor, f"{level}_threshold").item(),
                "normalised": getattr(processor, f"normalized_{level}_threshold").item(),
            }
            for level in ("image", "pixel")
        },
        "normalisation": {
            "class": type(processor).__name__,
            **{name: getattr(processor, name).item() for name in NORMALISATION},
        },
        "files": files,
        "reference": reference,
        **describe_run(),
    }


def measure_reference(predictions: Sequence[Prediction]) -> dict[str, list[float]]:
    """Return scores, brightness and sharpness of photographs, a value for each."""
    brightness, sharpness = zip(*(measure(read_photograph(x.path)) for x in predictions), strict=True)
    return {
        "score": [prediction.score for prediction in predictions],
        "raw_score": [prediction.raw_score for prediction in predictions],
        "brightness": list(brightness),
        "sharpness": list(sharpness),
    }
