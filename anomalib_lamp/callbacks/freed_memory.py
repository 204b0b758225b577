"""Keeps the memory of freed tensors for the next ones: getting it from the system anew takes a fifth of a training."""

import ctypes
import sys

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # parameters of glibc's mallopt
LARGEST_FROM_HEAP = 32 * 2**20  # bytes; glibc allows no more
KEPT = 2**31 - 1  # bytes of free memory at the end of the heap
GROWN_AT_ONCE = 256 * 2**20  # bytes


class KeepFreedMemory(Callback):
    """Have glibc keep freed memory in the process from the first fit on the CPU on.

    By default it returns tensors of some megabytes to the system when they are freed. The next ones get pages that the
    system has to fill with zeros first: in every step the memory of all activations. The peak of memory is the same.
    Elsewhere than on Linux with glibc nothing is done.

    Example:
        >>> trainer = Trainer(callbacks=[KeepFreedMemory()], logger=False, accelerator="cpu")
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the thresholds."""
        del pl_module
        if stage == "fit" and trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()


def keep_freed_memory() -> bool:
    """Set glibc's thresholds for this process; return whether there is a glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    mallopt(MMAP_THRESHOLD, LARGEST_FROM_HEAP)
    mallopt(TRIM_THRESHOLD, KEPT)
    mallopt(TOP_PAD, GROWN_AT_ONCE)
    return True
