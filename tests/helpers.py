"""What several test files use: where things lie, small drawn parts, small models, and models that behave badly."""

import multiprocessing
import os
import signal
from pathlib import Path

from anomalib_lamp import LampAE, SyntheticParts
from anomalib_lamp.callbacks import BestAverage

REPOSITORY = Path(__file__).parents[1]
SMALL_PARTS = {"size": 64, "num_train": 8, "num_test_good": 4, "num_test_per_defect": 1}
SHARED_DATA = Path(os.environ.get("ANOMALIB_LAMP_DATA", REPOSITORY.parent / "shared" / "data"))


def make_parts(root, **arguments):
    """Return a tiny SyntheticParts datamodule."""
    return SyntheticParts(root=root, **{**SMALL_PARTS, "train_batch_size": 4, **arguments})


def make_lamp_ae(**arguments):
    """Return a tiny LampAE."""
    small = {"width": 4, "depth": 3, "image_size": 64, "max_steps": 4, "seed": 0, "visualizer": False}
    return LampAE(**{**small, **arguments})


def best_average(trainer):
    """Return the callback of a trainer that follows the weights."""
    return next(callback for callback in trainer.callbacks if isinstance(callback, BestAverage))


class DiesOnce(LampAE):
    """Kills its process in the first training that sees no marker file, as the system does when memory is exhausted.

    Workers of the runner import it by name.

    Args:
        marker: File that says that it has died before.
        max_steps: As LampAE's.
        width: As LampAE's.
        image_size: As LampAE's.
    """

    def __init__(self, marker: str, max_steps: int = 1, width: int = 4, image_size: int = 64) -> None:
        super().__init__(max_steps=max_steps, width=width, image_size=image_size, visualizer=False)
        self.marker = Path(marker)

    def on_fit_start(self) -> None:
        if not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class NotesStartMethod(LampAE):
    """Writes down how its data loaders would start their workers.

    Args:
        note: File to write to.
    """

    def __init__(self, note: str) -> None:
        super().__init__(max_steps=1, width=4, image_size=64, visualizer=False)
        Path(note).write_text(multiprocessing.get_start_method())
