"""Shifts training images once a network overfits to them, as far as it takes."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

OVERFITTING_RATIO = 1.15  # held-out loss over loss on learnt images from which images are shifted farther
REACH_STEP = 1 / 64  # change of reach, as a fraction of the side


class AdaptiveShift(Callback):
    """Shift every image by a random number of whole pixels, up to a reach that grows and shrinks during a training.

    Where few images show parts in different places, a network soon memorises the place of each, and repairs others
    badly. Shifted images are new to it. Where all parts lie alike, shifts would only blur what is known about each
    place, so nothing is shifted until held-out images are repaired worse than learnt ones by ``OVERFITTING_RATIO``.
    What a shift uncovers is filled by reflection. While the reach is 0 no random number is drawn. As a callback it
    starts every training with a reach of 0, or with that of the training that is resumed.

    The idea of augmenting as much as overfitting asks for is that of Karras et al. 2020
    (https://arxiv.org/abs/2006.06676); measure and augmentation are our own.

    Args:
        furthest: Largest reach, as a fraction of each side, in [0, 1); 0 for never shifting.

    Raises:
        ValueError: If the fraction is out of range.

    Example:
        >>> shift = AdaptiveShift()
        >>> images = torch.rand(2, 3, 64, 64)
        >>> torch.equal(shift(images), images)
        True
        >>> shift.adapt(held_out_loss=1.3, learnt_loss=1.0)
        >>> shift.reach, shift(images).shape
        (0.015625, torch.Size([2, 3, 64, 64]))
    """

    def __init__(self, furthest: float = 0.125) -> None:
        if not 0 <= furthest < 1:
            msg = f"Expected furthest_shift in [0, 1), got {furthest}."
            raise ValueError(msg)
        self.furthest = furthest
        self.reach = 0.0

    def adapt(self, held_out_loss: float, learnt_loss: float) -> None:
        """Lengthen the reach if the network overfits to the learnt images, shorten it otherwise."""
        change = REACH_STEP if held_out_loss > OVERFITTING_RATIO * learnt_loss else -REACH_STEP
        self.reach = min(max(self.reach + change, 0.0), self.furthest)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin a fit with a reach of 0."""
        del trainer, pl_module
        if stage == "fit":
            self.reach = 0.0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the reach at the end of a training."""
        del trainer, pl_module
        if self.reach:
            rank_zero_info(f"Images to learn were shifted by up to {self.reach:.1%} of their side at the end.")

    def state_dict(self) -> dict[str, Any]:
        """Return the reach, for checkpoints."""
        return {"reach": self.reach}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the reach of an interrupted training."""
        self.reach = state_dict["reach"]

    def __call__(self, images: Tensor) -> Tensor:
        """Return images (N, C, H, W), each shifted in its own way."""
        if not self.reach:
            return images
        height, width = images.shape[-2:]
        down, right = int(self.reach * height), int(self.reach * width)  # reflection needs less than the side
        padded = F.pad(images, (right, right, down, down), mode="reflect")
        tops = torch.randint(2 * down + 1, (len(images),)).tolist()
        lefts = torch.randint(2 * right + 1, (len(images),)).tolist()
        windows = zip(padded, tops, lefts, strict=True)
        return torch.stack([image[:, top : top + height, left : left + width] for image, top, left in windows])
