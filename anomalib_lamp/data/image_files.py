"""What an image file holds, and what anomalib's reading of it would lose."""

from dataclasses import dataclass

from PIL import ExifTags, Image

UPRIGHT = 1  # EXIF orientation of pixels that are stored as they are to be seen


@dataclass(frozen=True)
class Look:
    """What was seen of an image file.

    Attributes:
        path: The file.
        error: Why it cannot be read; empty if it can.
        is_turned: Whether an EXIF orientation says that the pixels are to be turned or mirrored before they are shown.
            anomalib takes them as they are stored.
        is_cut_off: Whether values are lost since anomalib reads them as 0 to 255: of grey images of 16 bit, those above
            255, and of floating-point images those below 0 and above 255, or all if they lie in [0, 1].
        is_constant: Whether the image, as anomalib reads it, is of one colour everywhere; ``False`` if not decoded.
    """

    path: str
    error: str = ""
    is_turned: bool = False
    is_cut_off: bool = False
    is_constant: bool = False


def look_at(path: str, *, decode: bool = True) -> Look:
    """Look at an image file.

    Args:
        path: The file.
        decode: Whether to read the pixels, which alone shows truncated files and constant images. Otherwise only those
            of 16-bit and floating-point images are read, and of a PNG an orientation that stands after them is missed.

    Example:
        >>> look_at("nowhere.png").error
        "FileNotFoundError: [Errno 2] No such file or directory: 'nowhere.png'"
    """
    try:
        with Image.open(path) as image:
            if decode:
                image.load()
            return Look(
                path,
                is_turned=_is_turned(image),
                is_cut_off=_is_cut_off(image),
                is_constant=decode and _is_constant(image),
            )
    except Exception as error:  # Pillow's decoders raise errors of many types
        return Look(path, error=f"{type(error).__name__}: {error}")


def _is_turned(image: Image.Image) -> bool:
    exif = Image.Image.getexif(image)  # a PNG's own method decodes it
    return exif.get(ExifTags.Base.Orientation, UPRIGHT) in range(UPRIGHT + 1, 9)


def _is_cut_off(image: Image.Image) -> bool:
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return False
    low, high = image.getextrema()
    return low < 0 or high > 255 or (image.mode == "F" and high <= 1)  # type: ignore[operator]


def _is_constant(image: Image.Image) -> bool:
    return all(low == high for low, high in image.convert("RGB").getextrema())  # type: ignore[misc]
