"""Augmentations that make normal images anomalous, for checks without real anomalies."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import AugMix
from torchvision.transforms.v2.functional import to_dtype

from anomalib_lamp.corruption import uniform

CONFETTI_PIECES = 12


def cutout(images: Tensor) -> Tensor:
    """Return images (N, C, H, W) in [0, 1] with a square of their mean colour, 10 % to 30 % of the side."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    side = uniform(images, 0.1, 0.3)
    return torch.where(_rectangle(images, side, side), mean, images)


def confetti(images: Tensor) -> Tensor:
    """Return images (N, C, H, W) in [0, 1] strewn with small rectangles, each of one random colour."""
    for _ in range(CONFETTI_PIECES):
        piece = _rectangle(images, uniform(images, 0.01, 0.06), uniform(images, 0.01, 0.06))
        colour = torch.rand(*images.shape[:2], 1, 1, device=images.device)
        images = torch.where(piece, colour, images)
    return images


def augmix(images: Tensor) -> Tensor:
    """Return images (N, 3, H, W) in [0, 1] through torchvision's AugMix, each with a mixture of its own."""
    transform = AugMix()
    mixed = [transform(image) for image in to_dtype(images, torch.uint8, scale=True)]
    return to_dtype(torch.stack(mixed), images.dtype, scale=True)


AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {"cutout": cutout, "augmix": augmix, "confetti": confetti}


def _rectangle(images: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Draw a place for each image; true in a rectangle there (N, 1, H, W). Its sides are fractions of the image's."""
    rows, columns = (torch.linspace(0, 1, side, device=images.device) for side in images.shape[-2:])
    inside_rows = (rows[:, None] - uniform(images, 0, 1)).abs() <= height / 2
    inside_columns = (columns[None, :] - uniform(images, 0, 1)).abs() <= width / 2
    return inside_rows & inside_columns
