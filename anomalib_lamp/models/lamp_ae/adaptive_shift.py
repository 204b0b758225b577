"""Shifts training images as far as it takes to keep a network from learning them by heart."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

LEARNT_BY_HEART = 1.15  # held-out loss over loss on learnt images from which images are shifted farther
STRIDE = 64  # changes of reach from none to the whole side


class AdaptiveShift:
    """Shift every image by a random number of whole pixels, up to a reach that grows and shrinks during a training.

    Where few images show parts that lie about, a network soon knows by heart where each of them lies, and repairs
    others badly. Shifted images are new to it. Where all parts lie alike, shifts would only blur what is known about
    each place, so nothing is shifted until held-out images are repaired clearly worse than learnt ones. What a shift
    uncovers is filled by reflection. While the reach is 0 no random number is drawn.

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
        """Lengthen the reach if the learnt images are known by heart, shorten it otherwise."""
        change = 1 / STRIDE if held_out_loss > LEARNT_BY_HEART * learnt_loss else -1 / STRIDE
        self.reach = min(max(self.reach + change, 0.0), self.furthest)

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
