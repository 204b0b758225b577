"""Writes data sets to disk: pictures, and folders that are whole or absent."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2

from .drawing import Array


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """Give a folder beside ``folder`` to write to, and rename it at the end: a killed run leaves no half data set.

    Raises:
        OSError: If writing or renaming fails, also where another process was faster; what was written is deleted.
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
