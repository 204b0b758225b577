"""Writes images, and folders that are either complete or absent; refuses folders that anomalib will not read."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2
from anomalib.data.utils import validate_path
from filelock import FileLock

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


def make_folder(folder: Path, is_made: Callable[[], bool], write: Callable[[Path], None]) -> None:
    """Make a folder that is either complete or absent, however the process ends.

    It is written beside ``folder`` and renamed at the end. One process does so, others wait for it. What a process
    left that was killed is deleted by the next one.

    Args:
        folder: What to make.
        is_made: Tells whether the folder is there.
        write: Writes the content to the folder that it is given.

    Raises:
        OSError: If writing fails; what was written is deleted.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.part")
    lock = folder.with_name(f".{folder.name}.lock")
    with FileLock(lock):
        shutil.rmtree(unfinished, ignore_errors=True)
        if not is_made():
            try:
                write(unfinished)
                unfinished.replace(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        with suppress(OSError):  # Windows keeps open files
            lock.unlink()  # not before the folder is made: whoever waits with this lock will not write any more


def write_png(path: Path, image: Array) -> None:
    """Write an image, RGB (H, W, 3) or grey (H, W), and make its folder; raise OSError if that fails."""
    encoded, content = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)
    if not encoded:
        msg = f"Expected an image that can be written as PNG to {path}, got shape {image.shape} of {image.dtype}."
        raise OSError(msg)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.tobytes())
