"""Which weights of a training are kept: of their moving average, the one that repairs held-out images best."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from anomalib_lamp.corruption import repeatably

from .before_validation import BeforeValidation
from .training_budget import steps_between

MAX_DECAY = 0.98  # the average looks back over 50 steps
PROBE_IMAGES = 32  # held-out samples that weights are judged by, and as many learnt ones
CHECKS_PER_TRAINING = 20
CHUNK_SIZE = 16

Loss = Callable[[Tensor, Tensor], Tensor]
Samples = Callable[[LightningModule, int], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Probe:
    """Damaged samples and what they should be repaired to, each of shape (N, ...)."""

    damaged: Tensor
    normal: Tensor

    @torch.no_grad()
    def loss_of(self, network: nn.Module, loss: Loss) -> float:
        """Return the loss of a network, summed over the samples."""
        chunks = zip(self.damaged.split(CHUNK_SIZE), self.normal.split(CHUNK_SIZE), strict=True)
        return torch.stack([loss(network(damaged), normal) * len(normal) for damaged, normal in chunks]).sum().item()


class BestAverage(BeforeValidation):
    """Validate, save and keep the moving average of a network's weights that repairs held-out images best.

    A network that learns few images for long overfits: it repairs images that it has not learnt worse and worse.
    Averages make weights from the middle of a training as good as those of its end. They look back over 50 steps, at
    the beginning over a tenth of the steps so far. Twenty times in a training the average is checked. The best one is
    given to the network before every validation and stays there until the next batch is learnt, so that what is
    calibrated, validated and saved is the same. Without held-out images this callback does nothing.

    Lightning's ``WeightAveraging`` is not used: it averages the whole Lightning module, calibration and metrics
    included, and keeps the last average rather than the best.

    Args:
        name: Name of the network, by which checkpoints know it.
        network: The network that is trained.
        samples: Called when a training starts with the Lightning module and a number; returns at most so many normal
            samples that are not learnt, and as many that are, (N, ...) each. N is 0 if nothing is held out.
        damage: How samples are damaged before they are repaired; always the same for a check.
        loss: Loss of repaired and normal samples, a mean over samples.
        on_check: Called after every check with the average's loss on held-out samples and on as many learnt ones, both
            summed over the samples.

    Attributes:
        kept: State of the network with the best average so far; empty before the training starts.
        kept_loss: Loss of the best average on the held-out images.
        average: The moving average; ``None`` before and after a training, and without held-out images.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        samples: Samples,
        damage: Callable[[Tensor], Tensor],
        loss: Loss,
        on_check: Callable[[float, float], None] | None = None,
    ) -> None:
        self.name = name
        self.network = network
        self.samples = samples
        self.damage = damage
        self.loss = loss
        self.on_check = on_check
        self.average: AveragedModel | None = None
        self.kept: dict[str, Tensor] = {}
        self.kept_loss = self.last_loss = math.inf
        self._learning: dict[str, Tensor] | None = None  # the weights in training while the network has the kept ones
        self._followed_step = self._checked_step = 0
        self._resumed: dict[str, Any] | None = None

    @property
    def state_key(self) -> str:
        """The key of this callback's state in checkpoints."""
        return f"{type(self).__name__}:{self.name}"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an average, if samples are held out to check it by."""
        held_out, learnt = self.samples(pl_module, PROBE_IMAGES)
        if not len(held_out):
            return
        self._check_interval = steps_between(trainer, CHECKS_PER_TRAINING)
        self.begin(held_out, learnt)

    def begin(self, held_out: Tensor, learnt: Tensor) -> None:
        """Begin an average of the network's weights, or go on with that of an interrupted training.

        Args:
            held_out: Normal samples (N, ...) that weights are judged by.
            learnt: Samples that are learnt, as many.
        """
        self._held_out_probe, self._learnt_probe = (
            Probe(repeatably(self.damage, normal), normal) for normal in (held_out, learnt)
        )
        self.average = AveragedModel(self.network, multi_avg_fn=moving_average, use_buffers=True).eval()
        self.kept = copy.deepcopy(self.network.state_dict())
        if self._resumed:
            self._learning = self._resumed["learning"]
            self.average.load_state_dict(self._resumed["average"])
            self.kept, self.kept_loss = self._resumed["kept"], self._resumed["kept_loss"]
            self._resumed = None

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Give the network the weights in training back if it has the kept ones."""
        del args, kwargs
        self.give_back()

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Take the step's weights into the average; check it when that is due."""
        del args, kwargs
        if self.average is None:
            return
        self.follow(trainer.global_step)
        if trainer.global_step % self._check_interval == 0 and self._checked_step != trainer.global_step:
            self.check()
            if self.on_check:
                self.on_check(self.last_loss, self._learnt_probe.loss_of(self.average, self.loss))

    def bring_up_to_date(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the network the best average, the present one included, the same in all processes.

        The present one is not kept for later: validations do not influence the training, whose checks come at fixed
        steps. Batch norms differ between processes.
        """
        del pl_module
        if self.average is None:
            return
        self.show()
        if trainer.world_size > 1:
            for tensor in (*self.network.parameters(), *self.network.buffers()):
                torch.distributed.broadcast(tensor.data, src=0)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the network with the best average."""
        self.bring_up_to_date(trainer, pl_module)
        self.average = self._learning = None

    def follow(self, step: int) -> None:
        """Take the network's weights after a step into the average; once, if gradients are accumulated."""
        if step != self._followed_step and self.average is not None:
            self.average.update_parameters(self.network)
        self._followed_step = step

    def check(self) -> None:
        """Keep the average if it repairs the held-out images better than all before."""
        loss = self._present_loss()
        if self.average is not None and loss < self.kept_loss:
            self.kept_loss = loss
            self.kept = copy.deepcopy(self.average.module.state_dict())

    def _present_loss(self) -> float:
        """Return the loss of the average on the held-out images, computed once per step."""
        if self._checked_step != self._followed_step:
            self._checked_step = self._followed_step
            self.last_loss = self._held_out_probe.loss_of(self.average, self.loss)  # type: ignore[arg-type]
        return self.last_loss

    def show(self) -> None:
        """Give the network the best average: the kept one, or the present one if that is better."""
        if self._learning is None:
            self._learning = copy.deepcopy(self.network.state_dict())
        present_is_best = self._present_loss() < self.kept_loss
        self.network.load_state_dict(self.average.module.state_dict() if present_is_best else self.kept)  # type: ignore[union-attr]

    def give_back(self) -> None:
        """Give the network the weights in training back, if it was given the kept ones."""
        if self._learning is not None:
            self.network.load_state_dict(self._learning)
        self._learning = None

    def state_dict(self) -> dict[str, Any]:
        """Return what an interrupted training needs to go on: nothing before or after one."""
        if self.average is None:
            return {}
        return {
            "learning": self._learning,
            "average": self.average.state_dict(),
            "kept": self.kept,
            "kept_loss": self.kept_loss,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember what :meth:`state_dict` gave until the training starts."""
        self._resumed = state_dict


def moving_average(averages: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
    """Take weights and buffers into their averages, in place; ``count`` is how many went into them."""
    decay = min(MAX_DECAY, (1 + int(count)) / (10 + int(count)))
    get_ema_multi_avg_fn(decay)(averages, current, count)
