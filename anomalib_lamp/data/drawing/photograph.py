"""Photographs drawn parts, good and with a defect that is noticeable."""

import math

import cv2
import numpy as np
from numpy.random import Generator

from .catalogue import PARTS
from .tools import Array, coordinates, seeded, tint

DRAWING_VERSION = 1  # raise it whenever the same arguments would give other pixels
SMALLEST_DEFECT = 0.0005  # fraction of the image
MIN_MEAN_CHANGE = 8.0  # inside a defect's mask, in grey levels of 255


def photograph(rng: Generator, image: Array) -> Array:
    """Light, blur and sample a scene drawn at twice the size; gives ``(H, W, 3)`` in grey levels, not yet rounded."""
    x, y = coordinates(image.shape[1])
    angle, steep, bright = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.25), rng.uniform(0.87, 1.08)
    lamp = bright * (1 + steep * (math.cos(angle) * x + math.sin(angle) * y) - 0.25 * (x * x + y * y))
    cast = (1 + rng.normal(0, 0.01, 3)).tolist()
    seen = _sample(cv2.merge(list(image * tint(lamp, *cast))), rng.uniform(0.6, 1.5))
    noise = rng.standard_normal(seen.shape, dtype=np.float32) * np.sqrt(0.2 + np.clip(seen, 0, 1))
    return 255 * np.clip(seen + rng.uniform(0.006, 0.013) * noise, 0, 1)


def _sample(image: Array, sigma: float) -> Array:
    size = len(image) // 2
    return cv2.resize(cv2.GaussianBlur(image, (0, 0), sigma), (size, size), interpolation=cv2.INTER_AREA)


def draw_good(category: str, split: str, index: int, drawing_seed: int = 0, image_size: int = 256) -> Array:
    """Draw one good part, RGB; it depends on these arguments alone."""
    key = (drawing_seed, category, split, "good", index, image_size)
    scene = PARTS[category].draw(seeded(*key, "part"), 2 * image_size)
    return np.rint(photograph(seeded(*key, "camera"), scene.image)).astype(np.uint8)


def draw_defective(
    category: str, defect: str, index: int, drawing_seed: int = 0, image_size: int = 256
) -> tuple[Array, Array, Array]:
    """Draw one part without and with a defect.

    Returns:
        The clean image, the defective image and the mask (0 or 255). Outside the mask the two images are equal.
    """
    key = (drawing_seed, category, "test", defect, index, image_size)
    scene = PARTS[category].draw(seeded(*key, "part"), 2 * image_size)
    clean = photograph(seeded(*key, "camera"), scene.image)
    draw, largest = PARTS[category].defects[defect]
    rng = seeded(*key, "defect")
    for _ in range(1000):  # usually the first attempt is accepted
        damaged, alpha = draw(rng, scene)
        change = photograph(seeded(*key, "camera"), damaged) - clean
        alpha = _sample(alpha, 1.0)
        mask = alpha > 0.2
        change *= np.clip((alpha - 0.2) / 0.2, 0, 1)[..., None]  # no change outside the mask
        if SMALLEST_DEFECT <= mask.mean() <= largest and np.abs(change).max(axis=2)[mask].mean() >= MIN_MEAN_CHANGE:
            break
    else:
        msg = f"Found no noticeable {defect} on {category} {index} at {image_size} pixels; try another drawing_seed."
        raise RuntimeError(msg)
    before, after = (np.rint(np.clip(image, 0, 255)).astype(np.uint8) for image in (clean, clean + change))
    return before, after, mask.astype(np.uint8) * 255
