"""Pictures of the clearest hits, the worst misses and the worst false alarms of a test."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from torch import Tensor

from .measure import TestPredictions

PICTURE_SIDE = 256
PICTURES_PER_SORT = 2


def save_pictures(predictions: TestPredictions, folder: Path) -> None:
    """Save pictures as ``hit_0.jpg``, ``miss_0.jpg``, ``false_alarm_0.jpg``, ...: image, defect, heat map in a row.

    A hit is a defective image with a high score, a miss one with a low score, a false alarm a good image with a high
    score; no threshold is used. Colours of the heat map run from the lowest to the highest value of the whole test
    set. Nothing is saved for a model without maps.

    Args:
        predictions: What the model gave for the test set.
        folder: Where the pictures go.

    Raises:
        OSError: If a picture cannot be written.
    """
    maps = predictions.maps
    if maps is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    low, high = float(maps.min()), float(np.quantile(maps.numpy()[:, ::4, ::4], 0.9995))
    for name, index in _cases(predictions.scores, predictions.labels):
        heat = ((maps[index] - low) / max(high - low, 1e-12)).clamp(0, 1).numpy()
        mask = None if predictions.masks is None else predictions.masks[index].numpy()
        picture = _picture(_read(predictions.paths[index]), mask, heat)
        Image.fromarray(picture).save(folder / f"{name}.jpg", quality=85)  # raises where cv2.imwrite returns False


def _cases(scores: Tensor, labels: Tensor) -> list[tuple[str, int]]:
    """Return names and indices of the images to show."""
    ascending = scores.argsort().tolist()
    defective = [index for index in ascending if labels[index]]
    good = [index for index in ascending if not labels[index]]
    chosen = {"hit": defective[::-1], "miss": defective, "false_alarm": good[::-1]}
    return [
        (f"{name}_{rank}", index)
        for name, indices in chosen.items()
        for rank, index in enumerate(indices[:PICTURES_PER_SORT])
    ]


def _read(path: str) -> np.ndarray:
    """Return an image in RGB, whatever format anomalib could read."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def _picture(image: np.ndarray, mask: np.ndarray | None, heat: np.ndarray) -> np.ndarray:
    """Return image, image with the outline of the defect, and image under the heat map, side by side."""
    image = cv2.resize(image, (PICTURE_SIDE, PICTURE_SIDE), interpolation=cv2.INTER_AREA)
    outlined = image.copy()
    if mask is not None:
        mask = cv2.resize(mask.astype(np.uint8), (PICTURE_SIDE, PICTURE_SIDE), interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(outlined, contours, -1, (255, 0, 0), 2)
    heat = cv2.resize((heat * 255).astype(np.uint8), (PICTURE_SIDE, PICTURE_SIDE), interpolation=cv2.INTER_LINEAR)
    coloured = cv2.applyColorMap(heat, cv2.COLORMAP_JET)[..., ::-1]
    return np.hstack([image, outlined, cv2.addWeighted(image, 0.5, coloured, 0.5, 0)])
