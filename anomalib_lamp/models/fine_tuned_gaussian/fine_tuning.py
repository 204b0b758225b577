"""Both stages of a training without anomalies: fitting the Gaussians, and fine-tuning the backbone towards them."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor

from anomalib_lamp.backbone import Backbone
from anomalib_lamp.callbacks import BeforeValidation, HeldOutImages, stop_after_validation
from anomalib_lamp.callbacks.held_out import training_batches
from anomalib_lamp.corruption import repeatably
from anomalib_lamp.functional import check_images

from .augmentation import AUGMENTATIONS
from .torch_model import FineTunedGaussianModel

logger = logging.getLogger(__name__)

CHUNK_SIZE = 16


class StoppingRule:
    """Says when forgetting has set in: when a value has not been the best for a while.

    Args:
        patience: How many checks in a row may bring no new best value.

    Example:
        >>> rule = StoppingRule(patience=2)
        >>> [rule.is_best(value) for value in (0.7, 0.8, 0.8, 0.75)]
        [True, True, False, False]
        >>> rule.stop
        True
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best = -torch.inf
        self.checks_since_best = 0

    def is_best(self, value: float) -> bool:
        """Take note of a value, and return whether it is larger than all before."""
        if value > self.best:
            self.best, self.checks_since_best = value, 0
            return True
        self.checks_since_best += 1
        return False

    @property
    def stop(self) -> bool:
        """Return whether patience is used up."""
        return self.checks_since_best >= self.patience


class FitGaussians(Callback):
    """Stage 1: fit the Gaussians to the training images that are not held out, unless a training is resumed.

    Args:
        model: The model.
        held_out: Held-out images; its callback has to come before this one.
        load_weights: Called at the start of a fit, before anything is fitted; it may load the backbone's weights.
    """

    def __init__(
        self, model: FineTunedGaussianModel, held_out: HeldOutImages, load_weights: Callable[[], None]
    ) -> None:
        self.model = model
        self.held_out = held_out
        self.load_weights = load_weights

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the backbone's weights."""
        del pl_module
        if trainer.ckpt_path is None:
            self.load_weights()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit the Gaussians."""
        if trainer.ckpt_path is None:
            logger.info("Fitting the Gaussians to %d images.", len(self.held_out.learnt))
            self.model.fit(checked_images(pl_module, self.held_out.learnt))


class FineTuning(BeforeValidation):
    """Stage 2: fine-tune a copy of the backbone; the model takes over its weights whenever they are the best so far.

    So the model is the best so far at any time, whatever ends the training. The Gaussians of the score stay fixed;
    those of the map are fitted to the backbone as it is before every validation.

    Args:
        model: The model, its Gaussians fitted before the training starts.
        held_out: Held-out images; its callback has to come before this one.
        augmentations: Names of the augmentations that held-out images are compared with.
        check_every: Steps between two checks of the held-out images.
        patience: How many checks in a row may bring no better separation before the training is stopped.

    Attributes:
        learner: The copy that is trained; ``None`` if the backbone stays frozen, and outside of a training.
        rule: The stopping rule.
        separation: How well held-out images were told from augmented ones at the last check, in [0, 1].
    """

    def __init__(
        self,
        model: FineTunedGaussianModel,
        held_out: HeldOutImages,
        augmentations: Sequence[str],
        check_every: int = 10,
        patience: int = 3,
    ) -> None:
        self.model = model
        self.held_out = held_out
        self.augmentations = augmentations
        self.check_every = check_every
        self.patience = patience
        self.learner: Backbone | None = None
        self._resumed: dict[str, Any] = {}
        self._reset()

    def _reset(self) -> None:
        self.rule = StoppingRule(self.patience)
        self.separation = 0.0
        self._normal = torch.empty(0)
        self._augmented: list[Tensor] = []
        self._checked_step = -1
        self._map_is_outdated = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse distributed strategies: the backbone that learns is a copy that they would not see."""
        del pl_module
        if stage == "fit" and isinstance(trainer.strategy, ParallelStrategy):
            msg = (
                "Expected one device and no distributed strategy for FineTunedGaussian, "
                f"got {type(trainer.strategy).__name__}. Leave out --trainer.strategy."
            )
            raise ValueError(msg)

    def new_learner(self) -> Backbone:
        """Return a copy of the backbone to train."""
        self.learner = copy.deepcopy(self.model.backbone).requires_grad_()
        return self.learner

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with a check of the held-out images, if there are any."""
        del pl_module
        self._reset()
        images = self.held_out.images
        if self.learner is not None and not len(images):
            logger.warning("Too few images to hold some out: the backbone stays frozen.")
            self.learner = None
        if self.learner is not None:
            check_images(images)
            self.begin(images)
            if self._resumed:
                self._go_on(self._resumed)
            else:
                self.check(trainer.global_step)
                self._map_is_outdated = False  # the weights that were taken over are those that the map was fitted with

    def begin(self, images: Tensor) -> None:
        """Start from the weights that the model has now; augment the images once, for all checks, always alike.

        Args:
            images: Normal images (N, 3, H, W) in [0, 1] that the Gaussians were not fitted to.
        """
        self.learner.load_state_dict(self.model.backbone.state_dict())  # type: ignore[union-attr]
        self._normal = images
        self._augmented = [repeatably(AUGMENTATIONS[name], images) for name in self.augmentations]

    def _go_on(self, state: dict[str, Any]) -> None:
        """Go on where an interrupted training was."""
        self.learner.load_state_dict(state["learner"])  # type: ignore[union-attr]
        self.rule.best, self.rule.checks_since_best = state["best"], state["checks_since_best"]
        self.separation, self._checked_step = state["separation"], state["checked_step"]
        self._map_is_outdated = state["map_is_outdated"]
        self._resumed = {}

    def state_dict(self) -> dict[str, Any]:
        """Return what an interrupted training needs to go on: nothing before or after one."""
        if self.learner is None or not len(self._normal):
            return {}
        return {
            "learner": self.learner.state_dict(),
            "best": self.rule.best,
            "checks_since_best": self.rule.checks_since_best,
            "separation": self.separation,
            "checked_step": self._checked_step,
            "map_is_outdated": self._map_is_outdated,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember what :meth:`state_dict` gave until the training starts."""
        self._resumed = state_dict

    def distance(self, images: Tensor) -> Tensor:
        """Return the distance (N) of images by the learner; its mean over normal images is the loss."""
        return self.model.distance(self.learner(images))  # type: ignore[misc]

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Check the held-out images when that is due; stop when patience is used up or nothing is trained."""
        del args, kwargs
        if trainer.global_step % self.check_every == 0:
            self.check(trainer.global_step)
        if self.learner is None or self.rule.stop:
            stop_after_validation(trainer)

    def check(self, step: int) -> bool:
        """Measure the separation, once per step; if it is the best so far, the model takes over the weights.

        Returns:
            Whether the model took over the weights.
        """
        if self.learner is None or step == self._checked_step:
            return False
        self._checked_step = step
        normal = self._distances(self._normal)
        self.separation = sum(separation(normal, self._distances(images)) for images in self._augmented)
        self.separation /= len(self._augmented)
        logger.info("Step %d: separation %.4f of held-out normal from augmented.", step, self.separation)
        is_best = self.rule.is_best(self.separation)
        if is_best:
            self.model.backbone.load_state_dict(self.learner.state_dict())
            self._map_is_outdated = True
        return is_best

    @torch.no_grad()
    def _distances(self, images: Tensor) -> Tensor:
        return torch.cat([self.distance(chunk) for chunk in images.split(CHUNK_SIZE)])

    def bring_up_to_date(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the last steps if they were good, and fit the map's Gaussians to the backbone as it is now."""
        self.check(trainer.global_step)
        if self._map_is_outdated:
            self.model.fit_locations(checked_images(pl_module, self.held_out.learnt))
            self._map_is_outdated = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the model up to date, and drop the copy, which would be exported with the model."""
        self.bring_up_to_date(trainer, pl_module)
        self.learner = None
        self._normal, self._augmented = torch.empty(0), []


def checked_images(pl_module: LightningModule, indices: Sequence[int]) -> Iterator[Tensor]:
    """Read training images (N, 3, H, W) in batches, and check that they are in [0, 1]."""
    for batch in training_batches(pl_module, indices):
        images: Tensor = batch.image  # type: ignore[assignment]
        check_images(images)
        yield images


def separation(normal: Tensor, augmented: Tensor) -> float:
    """Return how well distances of normal and of augmented images are told apart, in [0, 1].

    The AUROC of the two normal distributions fitted to the logarithms of the distances. The counted AUROC reaches 1 as
    soon as the two no longer overlap, which good features do at once; this one goes on to tell better from worse.

    Example:
        >>> separation(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 2.0, 4.0]))
        0.5
    """
    near, far = (distances.cpu().double().clamp(min=1e-12).log() for distances in (normal, augmented))
    spread = (near.var(correction=0) + far.var(correction=0)).sqrt().clamp(min=1e-6)
    return torch.special.ndtr((far.mean() - near.mean()) / spread).item()
