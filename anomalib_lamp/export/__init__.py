"""Exports a checkpoint to the folder that `anomalib-lamp-runtime` inspects photographs with."""

import json
from pathlib import Path

from anomalib.models import AnomalibModule
from anomalib_lamp_runtime import Inspector
from anomalib_lamp_runtime.commands.check import compare_golden_samples
from anomalib_lamp_runtime.export_folder import GOLDEN, METADATA

from anomalib_lamp.data.files import make_folder

from .golden import choose_golden_samples, write_golden_samples
from .loading import load_model
from .metadata import describe_export, measure_reference
from .model_files import require_packages, write_model_files
from .predictions import image_files, predict


def export(ckpt: Path, to: Path, images: Path, model: str = "LampAE", openvino: bool = False) -> Path:
    """Write a folder with the model files, their metadata and golden samples, and check it with the runtime.

    Args:
        ckpt: Checkpoint of a model that was trained and validated.
        to: Folder to write; it must not exist.
        images: Folder with photographs of normal parts, at best such that the model was not trained with. Their scores,
            brightness and sharpness become the reference, and some of them golden samples.
        model: Class of the model, by its name or its dotted path.
        openvino: Whether to write OpenVINO files as well.

    Returns:
        The folder.

    Raises:
        FileExistsError: If the folder exists.
        ModuleNotFoundError: If the packages for a format are not installed.
        ValueError: If the checkpoint is not of such a model or has no threshold, if there are no images, or if the
            export does not predict what the checkpoint predicts.
    """
    if to.exists():
        msg = f"Expected a folder that does not exist, got {to}. Delete it or give another one."
        raise FileExistsError(msg)
    require_packages(openvino)
    loaded = load_model(ckpt, model)
    files = image_files(images)
    make_folder(to, to.exists, lambda folder: _write(folder, loaded, files, openvino))
    return to


def _write(folder: Path, model: AnomalibModule, images: list[Path], openvino: bool) -> None:
    """Write everything to a folder and check it."""
    folder.mkdir(parents=True)
    predictions = predict(model, images)
    write_golden_samples(folder / GOLDEN, model, choose_golden_samples(predictions))
    files = write_model_files(folder, model, openvino)
    metadata = describe_export(model, files, measure_reference(predictions))
    (folder / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")
    for backend in files:
        _require_equal(folder, backend)


def _require_equal(folder: Path, backend: str) -> None:
    """Raise ValueError if an exported file does not predict what the checkpoint predicted for the golden samples."""
    differing = [line for line in compare_golden_samples(Inspector(folder, backend=backend)) if not line.equal]
    if differing:
        listed = "; ".join(map(str, differing))
        msg = (
            f"Expected the {backend} file to predict what the checkpoint predicts, got {listed}. Nothing was exported."
        )
        raise ValueError(msg)
