"""Features of the training images, computed once: the backbone is frozen, so they never change."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from rich.progress import track
from torch import Tensor

from anomalib_lamp.callbacks import HeldOutImages
from anomalib_lamp.callbacks.held_out import evenly_spread, training_batches

from .feature_branch import FeatureBranch
from .features import Levels

MEMORY_LIMIT = 2 * 2**30  # bytes
CHUNK_SIZE = 16  # images that pass the backbone at once


class FeatureMemory(Callback):
    """Compute the features of the training images when a training starts, and keep them in half precision.

    At 256 x 256 pixels an image takes 190 kB until the normal features are fitted, and 60 kB from then on. If not all
    fit into 2 GiB, evenly spread ones are kept, and only these are learnt. Augmentations of the datamodule act once, as
    the images are read.

    Distances are measured from the features of all training images. Those of held-out images must not be among them
    when held-out images are judged: see :meth:`without_held_out`.

    Args:
        branch: The branch that repairs features.
        held_out: Held-out images; its callback has to come before this one.
        load_weights: Called at the start of a fit; it loads the backbone's weights. Not called if one is resumed.

    Attributes:
        learnt: Features at stride 16 that are learnt, (N, C, h, w); N is 0 outside of a training.
        not_learnt: Those of the held-out images.
    """

    def __init__(self, branch: FeatureBranch, held_out: HeldOutImages, load_weights: Callable[[], None]) -> None:
        self.branch = branch
        self.held_out = held_out
        self.load_weights = load_weights
        self._forget()

    def _forget(self) -> None:
        self.learnt = self.not_learnt = torch.empty(0)
        self._gaussian_of_learnt = self.branch.gaussian

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the backbone's weights; those of a resumed training are in its checkpoint."""
        del pl_module
        if trainer.ckpt_path is None:
            self.load_weights()

    @torch.no_grad()
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the features, and take over what normal ones are like."""
        kept = self.held_out.learnt[:: self._step()]
        reading = track(
            training_batches(pl_module, kept),
            "Computing features",
            math.ceil(len(kept) / trainer.train_dataloader.batch_size),  # type: ignore[union-attr]
            transient=True,
            disable=trainer.progress_bar_callback is None,
        )
        normal = Levels.of_all(self._features(batch.image) for batch in reading)  # type: ignore[arg-type]
        self.branch.fit(normal)
        self.learnt = normal.coarse
        images = self.held_out.images
        if len(images):
            self._gaussian_of_learnt = copy.deepcopy(self.branch.gaussian)
            not_learnt = Levels.of_all(self._features(chunk) for chunk in images.split(CHUNK_SIZE))
            self.not_learnt = not_learnt.coarse
            self.branch.fit_distance(Levels.of_all([normal, not_learnt]))
        rank_zero_info(f"Features of {len(self.learnt)} images are kept in memory.")

    @contextmanager
    def without_held_out(self) -> Iterator[None]:
        """Let the branch measure distances from learnt images only."""
        of_all = self.branch.gaussian
        self.branch.gaussian = self._gaussian_of_learnt
        try:
            yield
        finally:
            self.branch.gaussian = of_all

    def _features(self, images: Tensor) -> Levels:
        return Levels(*(maps.half() for maps in self.branch.features(images)))

    def _step(self) -> int:
        """Return of how many learnt images one is kept."""
        numbers = sum(
            math.prod(shape) for shape in (self.branch.features.fine_shape, self.branch.features.coarse_shape)
        )
        return math.ceil(torch.float16.itemsize * numbers * len(self.held_out.learnt) / MEMORY_LIMIT)

    def draw(self, count: int) -> Tensor:
        """Return the standardised features of so many learnt images, drawn at random, (count, C, h, w)."""
        chosen = torch.randint(len(self.learnt), (count,), device=self.learnt.device)
        return self.branch.coarse_scale(self.learnt[chosen])

    def samples(self, pl_module: LightningModule, at_most: int) -> tuple[Tensor, Tensor]:
        """Return at most so many standardised features of held-out and of learnt images, as many, evenly spread."""
        del pl_module
        held_out = self.not_learnt[:at_most]
        if not len(held_out):
            return held_out, held_out
        learnt = self.learnt[evenly_spread(len(self.learnt), len(held_out))]
        return self.branch.coarse_scale(held_out), self.branch.coarse_scale(learnt)

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """Forget the features."""
        del args, kwargs
        self._forget()

    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        """Forget them if the training breaks off."""
        self.teardown(*args, **kwargs)
