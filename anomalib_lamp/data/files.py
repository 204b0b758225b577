"""Writes images, and folders that are either complete or absent; refuses folders that anomalib will not read."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
from anomalib.data.utils import validate_path

from .drawing.tools import Array


def require_readable_root(root: Path, category: str) -> None:
    """Raise ValueError if anomalib's datasets will refuse a folder because of its name, before it is made.

    Example:
        >>> require_readable_root(Path("datasets"), "washer")
    """
    try:
        validate_path(root / category, should_exist=False)
    except ValueError as error:
        msg = (
            f"Expected a root in printable ASCII characters, such as anomalib reads, got {root} ({error}). "
            "Choose another root, or give a relative path or a link to it."
        )
        raise ValueError(msg) from error


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``folder`` and rename it at the end, so a killed run leaves no partial data set.

    Raises:
        OSError: If writing fails or another process has made the folder first; what was written is deleted.
    """
    unfinished = folder.parent / f".{folder.name}-{uuid.uuid4().hex}"
    try:
        yield unfinished
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_png(path: Path, image: Array) -> None:
    """Write an image, RGB (H, W, 3) or grey (H, W), and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)[1].tobytes())
