"""Golden samples: photographs and what the checkpoint predicts for them, to check an export on site."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from anomalib.models import AnomalibModule
from anomalib_lamp_runtime.photographs import read_photograph
from PIL import Image, ImageOps

from .predictions import Prediction, predict

DAMAGED = "damaged.png"


def choose_golden_samples(predictions: Sequence[Prediction]) -> dict[str, Path]:
    """Return the photographs of the lowest, the median and the highest score by these names.

    Example:
        >>> import torch
        >>> scores = {"a.png": 0.2, "b.png": 0.1, "c.png": 0.3}
        >>> predictions = [Prediction(Path(x), score, score, False, torch.empty(0)) for x, score in scores.items()]
        >>> {name: str(path) for name, path in choose_golden_samples(predictions).items()}
        {'lowest': 'b.png', 'median': 'a.png', 'highest': 'c.png'}
    """
    ordered = sorted(predictions, key=lambda prediction: prediction.score)
    chosen = {"lowest": ordered[0], "median": ordered[len(ordered) // 2], "highest": ordered[-1]}
    return {name: prediction.path for name, prediction in chosen.items()}


def write_golden_samples(folder: Path, model: AnomalibModule, photographs: dict[str, Path]) -> None:
    """Write golden samples: copies of photographs, a damaged one, and for each an npz file of what is expected.

    Args:
        folder: Folder to make.
        model: The model.
        photographs: Normal photographs by their new names, without ending.
    """
    folder.mkdir()
    copies = [folder / f"{name}{path.suffix.lower()}" for name, path in photographs.items()]
    for source, copy in zip(photographs.values(), copies, strict=True):
        shutil.copyfile(source, copy)
    damage(read_photograph(copies[0])).save(folder / DAMAGED)
    for prediction in predict(model, [*copies, folder / DAMAGED]):
        np.savez_compressed(
            prediction.path.with_name(f"{prediction.path.name}.npz"),
            score=np.float32(prediction.score),
            raw_score=np.float32(prediction.raw_score),
            anomalous=prediction.anomalous,
            anomaly_map=prediction.anomaly_map,
        )


def damage(image: Image.Image) -> Image.Image:
    """Return a copy whose middle, a third of the width and of the height, is in negative.

    Example:
        >>> image = damage(Image.new("L", (9, 9)))
        >>> [image.getpixel((x, 4)) for x in (2, 3, 5, 6)]
        [0, 255, 255, 0]
    """
    box = (image.width // 3, image.height // 3, image.width * 2 // 3, image.height * 2 // 3)
    copy = image.copy()
    copy.paste(ImageOps.invert(image.crop(box)), box)
    return copy
