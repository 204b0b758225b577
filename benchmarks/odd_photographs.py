"""Draws photographs of odd sizes, modes and formats, as they come from cameras, telephones and old programs."""

from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

# Mode, format and whether the file says that it is to be turned.
KINDS = [
    ("RGB", "png", False),
    ("L", "png", False),
    ("RGBA", "png", False),
    ("LA", "png", False),
    ("P", "png", False),
    ("1", "png", False),
    ("I;16", "png", False),
    ("RGB", "png", True),
    ("RGB", "jpg", False),
    ("L", "jpg", False),
    ("CMYK", "jpg", False),
    ("RGB", "jpg", True),
    ("RGB", "webp", False),
    ("RGBA", "webp", False),
    ("RGB", "tif", False),
    ("CMYK", "tif", False),
    ("I;16", "tif", False),
    ("I", "tif", False),
    ("F", "tif", False),
    ("LAB", "tif", False),
    ("RGB", "bmp", False),
    ("L", "bmp", False),
    ("P", "bmp", False),
    ("RGB", "ppm", False),
    ("L", "pgm", False),
]
SIZES = [(1, 1), (1, 97), (641, 7), (33, 65), (255, 257), (300, 199), (200, 504), (613, 461)]


def draw_odd_photographs(folder: Path, count: int = 50) -> list[Path]:
    """Write photographs to a folder and return their paths; every kind comes about equally often.

    Of the 16-bit ones the first keep to values below 256, later ones use the whole range.

    Args:
        folder: Folder to write to; it is made.
        count: Number of photographs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    paths = []
    for index, ((mode, suffix, turned), size) in enumerate(islice(zip(cycle(KINDS), cycle(SIZES)), count)):
        path = folder / f"{index:02}_{mode.replace(';', '')}.{suffix}"
        image = _draw(rng, mode, size, whole_range=index >= len(KINDS))
        exif = Image.Exif()
        if turned:
            exif[ExifTags.Base.Orientation] = int(rng.integers(2, 9))
        image.save(path, **({"exif": exif} if turned else {}))
        paths.append(path)
    return paths


def _draw(rng: np.random.Generator, mode: str, size: tuple[int, int], *, whole_range: bool) -> Image.Image:
    """Return a picture with coarse and fine structure."""
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    pixels = np.clip(np.asarray(coarse) + rng.normal(0, 15, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    factor = 257 if whole_range else 1
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * factor)
    if mode in ("I", "F"):
        return Image.fromarray(pixels[..., 0].astype(np.int32 if mode == "I" else np.float32) * factor)
    if mode == "LAB":
        return Image.merge("LAB", image.split())
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(pixels[..., 1]))
    return image.convert(mode)
