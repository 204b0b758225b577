"""Reads photographs as anomalib reads them in training, and measures their brightness and sharpness."""

import logging
import os
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from anomalib_lamp_runtime.errors import InspectionError

logger = logging.getLogger(__name__)

Photograph: TypeAlias = str | os.PathLike | Image.Image | np.ndarray

MAX_PIXELS = 50_000_000  # 600 MB as the model takes them
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # others, as PostScript, may start programs
MEASURED_SIDE = 1024  # longest side, in pixels, of what brightness and sharpness are measured on


def read_photograph(photograph: Photograph, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return a photograph in RGB, as anomalib's datasets read it.

    An EXIF orientation is ignored, an alpha channel dropped, and of 16-bit and floating-point grey images the values
    above 255 are cut off, with a warning. The size is checked before any pixel is decoded.

    Args:
        photograph: A file, a PIL image, or an RGB array (H, W, 3) of uint8.
        max_pixels: Most pixels that a photograph may have.

    Raises:
        InspectionError: If it is none of these, cannot be read or is too large.

    Example:
        >>> read_photograph(np.zeros((30, 40, 3), np.uint8)).size
        (40, 30)
    """
    if isinstance(photograph, np.ndarray):
        return _from_array(photograph, max_pixels)
    if isinstance(photograph, Image.Image):
        return _to_rgb(photograph, "the PIL image", max_pixels)
    if not isinstance(photograph, str | os.PathLike):
        msg = (
            f"Expected a file, a PIL image or an array (H, W, 3) of uint8, got {type(photograph).__name__}. "
            "Convert it to one of these."
        )
        raise InspectionError(msg)
    try:
        with Image.open(photograph, formats=FORMATS) as image:
            return _to_rgb(image, os.fspath(photograph), max_pixels)
    except InspectionError:
        raise
    except Image.DecompressionBombError as error:  # its own limit, 179 million pixels
        msg = (
            f"Expected a photograph of 1 to {max_pixels:,} pixels, got {os.fspath(photograph)} ({error}). "
            "Crop it or make it smaller."
        )
        raise InspectionError(msg) from error
    except Exception as error:  # Pillow's decoders raise errors of many types
        msg = (
            f"Expected a photograph that can be read, got {os.fspath(photograph)} ({type(error).__name__}: {error}). "
            "Take or copy it again."
        )
        raise InspectionError(msg) from error


def _from_array(array: np.ndarray, max_pixels: int) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        msg = (
            f"Expected an array (H, W, 3) of uint8 in the order red, green, blue, got {array.shape} of {array.dtype}. "
            "Convert it, for example by np.stack([grey] * 3, axis=2)."
        )
        raise InspectionError(msg)
    return _to_rgb(Image.fromarray(array), "the array", max_pixels)


def _to_rgb(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    if not 0 < image.width * image.height <= max_pixels:
        msg = (
            f"Expected a photograph of 1 to {max_pixels:,} pixels, got {image.width} x {image.height} from {name}. "
            "Crop it or make it smaller, or give a higher max_pixels if there is memory for 30 bytes a pixel."
        )
        raise InspectionError(msg)
    try:
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            _warn_if_cut_off(image, name)
        return image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise errors of many types
        msg = (
            f"Expected a complete photograph, got one that cannot be decoded from {name} "
            f"({type(error).__name__}: {error}). Take or copy it again."
        )
        raise InspectionError(msg) from error


def _warn_if_cut_off(image: Image.Image, name: str) -> None:
    low, high = image.getextrema()
    if low < 0 or high > 255 or (image.mode == "F" and high <= 1):  # type: ignore[operator]
        logger.warning(
            "Expected 8 bit per channel, got values from %s to %s in %s: they are cut off at 0 and 255 as anomalib "
            "does it, and the score means nothing. Convert it to 8 bit on the scale of the training images.",
            low,
            high,
            name,
        )


def photographs_in(source: Path) -> list[Path]:
    """Return a file, or the photographs in a folder and below, sorted.

    Raises:
        InspectionError: If there are none.
    """
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if is_photograph(path))
    if not files:
        msg = f"Expected a photograph or a folder with some ({', '.join(SUFFIXES)}), got {source}."
        raise InspectionError(msg)
    return files


def is_photograph(path: Path) -> bool:
    """Return whether a file has the ending of a photograph.

    Example:
        >>> is_photograph(Path("part.PNG"))
        True
    """
    return path.suffix.lower() in SUFFIXES


def as_input(image: Image.Image) -> np.ndarray:
    """Return an RGB image as models take it: float32 (1, 3, H, W) in [0, 1].

    Example:
        >>> as_input(Image.new("RGB", (5, 4), "white")).shape
        (1, 3, 4, 5)
    """
    images = np.empty((1, 3, image.height, image.width), np.float32)
    return np.divide(np.asarray(image).transpose(2, 0, 1)[None], np.float32(255), out=images, dtype=np.float32)


def measure(image: Image.Image) -> tuple[float, float]:
    """Return brightness and sharpness of an image.

    Brightness is the mean of the grey values in [0, 1], sharpness the standard deviation of their Laplacian (the sum
    of the four neighbours less four times the value). Images with a side above 1024 pixels are first made smaller by
    a whole number, so that their noise counts less and the measuring is quick.

    Example:
        >>> measure(Image.new("RGB", (64, 64), "white"))
        (1.0, 0.0)
    """
    grey = image.convert("L")
    grey = grey.reduce(-(-max(grey.size) // MEASURED_SIDE))
    values = np.asarray(grey, dtype=np.int16)
    brightness = float(values.mean()) / 255
    if min(values.shape) < 3:
        return brightness, 0.0
    centre = values[1:-1, 1:-1]
    laplacian = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * centre
    return brightness, float(laplacian.std()) / 255
