"""Which weights of a training are kept: of their moving average, the one that repairs held-out images best."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

DECAY = 0.98
CHUNK = 16


class BestAverage:
    """Follow a network that learns with a moving average of its weights, and keep the best average so far.

    A network that learns few images for long knows them by heart and repairs others worse and worse, most of all where
    parts lie about freely. Averages make weights from the middle of a training as good as those of its end. They look
    back over 50 steps, in the beginning over a tenth of the steps so far.

    Args:
        network: The network that learns.
        damaged: Held-out images as the network gets them, (N, 3, H, W) in [0, 1].
        normal: The same images as they should be returned.
        loss: What is to be small, of reconstruction and target.

    Example:
        >>> network = nn.Conv2d(3, 3, 1)
        >>> images = torch.rand(4, 3, 8, 8)
        >>> best = BestAverage(network, images, images, nn.functional.mse_loss)
        >>> best.follow(network, step=1)
        >>> best.check()
        True
        >>> best.loss_of_kept == best.loss_on(images, images)
        True
    """

    def __init__(
        self, network: nn.Module, damaged: Tensor, normal: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        self._average = AveragedModel(network, multi_avg_fn=_moving_average, use_buffers=True)
        self._average.eval()
        self._damaged = damaged
        self._normal = normal
        self._loss = loss
        self._followed = self._checked = 0
        self._learning: dict[str, Tensor] | None = None
        self.kept: dict[str, Tensor] = copy.deepcopy(network.state_dict())
        self.loss_of_kept = self.loss_of_last = math.inf

    def follow(self, network: nn.Module, step: int) -> None:
        """Take the network's weights after a step into the average; once, if gradients are accumulated."""
        if step != self._followed:
            self._average.update_parameters(network)
        self._followed = step

    def check(self) -> bool:
        """Keep the average if it repairs the held-out images better than all before; return whether it is a new one."""
        if self._checked == self._followed:
            return False
        self._checked = self._followed
        self.loss_of_last = self.loss_on(self._damaged, self._normal)
        if self.loss_of_last < self.loss_of_kept:
            self.loss_of_kept = self.loss_of_last
            self.kept = copy.deepcopy(self._average.module.state_dict())
        return True

    @torch.no_grad()
    def loss_on(self, damaged: Tensor, normal: Tensor) -> float:
        """Return the loss of the average, summed over damaged images that should be returned as normal ones."""
        losses = [
            self._loss(self._average(some_damaged), some_normal) * len(some_normal)
            for some_damaged, some_normal in zip(damaged.split(CHUNK), normal.split(CHUNK), strict=True)
        ]
        return torch.stack(losses).sum().item()

    def show(self, network: nn.Module) -> None:
        """Give the network the weights that are kept, for validation or for good."""
        if self._learning is None:
            self._learning = copy.deepcopy(network.state_dict())
        network.load_state_dict(self.kept)

    def learn_on(self, network: nn.Module) -> None:
        """Give the network back the weights that it learns with, if it has been shown the others."""
        if self._learning is not None:
            network.load_state_dict(self._learning)
        self._learning = None

    def state_dict(self) -> dict[str, Any]:
        """Return what an interrupted training needs to go on as if it had not been."""
        return {
            "learning": self._learning,
            "average": self._average.state_dict(),
            "kept": self.kept,
            "loss_of_kept": self.loss_of_kept,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave; the network gets its weights by :meth:`learn_on`."""
        self._learning = state["learning"]
        self._average.load_state_dict(state["average"])
        self.kept = state["kept"]
        self.loss_of_kept = state["loss_of_kept"]


def _moving_average(averages: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
    """Take weights and buffers into their averages, in place; ``count`` is how many went into them."""
    decay = min(DECAY, (1 + int(count)) / (10 + int(count)))
    get_ema_multi_avg_fn(decay)(averages, current, count)
