"""What several test files use: small drawn parts, and where things lie."""

import os
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
