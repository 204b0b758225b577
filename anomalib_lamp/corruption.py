"""Damages normal images in random regions; a network learns to restore them."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

NOISE_GRID_CELLS = (3, 6, 12, 24)  # cells per side of the coarse noise that regions are made from


class Corruption(nn.Module):
    """Damage images in random regions, and add noise.

    Several times, a region of random shape (a blob or hairlines) is drawn in every image and blended with a filling at
    random opacity. Gaussian noise of random standard deviation is added. A network that returns the undamaged image
    cannot copy its input; it has to learn what is normal.

    The idea is that of Bauer & Müller 2025 (https://arxiv.org/abs/2511.07233); regions and fillings are our own. All is
    drawn in batches on the images' device, from torch's global generators. Within a batch a region's filling and its
    noise grid are the same for all images; place, shape, size, colour and opacity differ.

    Args:
        strength: Factor of opacity and noise, in [0, 1]; 0 leaves images as they are.
        kinds: Fillings to choose from: ``colour`` (one colour), ``texture`` (one colour and noise), ``shift`` (another
            place of the same image), ``swap`` (another image of the batch), ``recolour`` (brighter, darker, tinted).
            All if not given.
        regions: How often a region is drawn; each falls on two thirds of the images.
        noise: Largest standard deviation of the Gaussian noise, in grey levels of 1.
        areas: Smallest and largest area of a blob, as fractions of the image; areas are log-uniform in between.

    Shape:
        (N, C, H, W) in [0, 1] to the same shape in [0, 1].

    Raises:
        ValueError: If an argument is unknown or out of range.

    Example:
        >>> Corruption()(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 3, 64, 64])
    """

    def __init__(
        self,
        strength: float = 1.0,
        kinds: Sequence[str] | None = None,
        regions: int = 3,
        noise: float = 0.05,
        areas: tuple[float, float] = (0.004, 0.25),
    ) -> None:
        super().__init__()
        if not 0 <= strength <= 1:
            msg = f"Expected corruption strength in [0, 1], got {strength}."
            raise ValueError(msg)
        unknown = sorted(set(kinds or ()) - set(FILLINGS))
        if unknown or (kinds is not None and not kinds):
            msg = f"Expected corruption kinds from {list(FILLINGS)}, got {list(kinds or ())}."
            raise ValueError(msg)
        if not noise >= 0:
            msg = f"Expected corruption noise to be 0 or a standard deviation in grey levels of 1, got {noise}."
            raise ValueError(msg)
        self.strength = strength
        self.kinds = list(kinds or FILLINGS)
        self.regions = regions
        self.noise = noise
        self.areas = areas

    def forward(self, images: Tensor) -> Tensor:
        """Return a damaged copy of ``images``."""
        if self.strength == 0:
            return images
        damaged = images
        for _ in range(self.regions):
            filling = FILLINGS[self.kinds[_integer(0, len(self.kinds))]](images)
            mask = hairlines(images) if torch.rand(()) < 0.3 else blob(images, *self.areas)
            opacity = self.strength * uniform(images, 0.25, 1.0) * (uniform(images, 0, 1) < 2 / 3)
            damaged = torch.lerp(damaged, filling.clamp(0, 1), opacity * mask)
        noise = self.strength * self.noise * uniform(images, 0, 1) * torch.randn_like(images)
        return (damaged + noise).clamp(0, 1)


def repeatably(damage: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return images damaged in the same way at every call, without use or change of torch's global generators."""
    with torch.random.fork_rng([] if images.device.type == "cpu" else [images.device], device_type=images.device.type):
        torch.manual_seed(0)
        return damage(images)


def _integer(low: int, high: int) -> int:
    """Draw one integer in [low, high)."""
    return int(torch.randint(low, high, ()).item())


def uniform(images: Tensor, low: float, high: float) -> Tensor:
    """Draw one number for each image, (N, 1, 1, 1)."""
    return low + (high - low) * torch.rand(len(images), 1, 1, 1, device=images.device)


def _field(images: Tensor) -> Tensor:
    """Draw smooth noise, (N, 1, H, W), with mean 0 and standard deviation 1 in every image."""
    cells = NOISE_GRID_CELLS[_integer(0, len(NOISE_GRID_CELLS))]
    coarse = torch.randn(len(images), 1, cells, cells, device=images.device)
    field = F.interpolate(coarse, size=images.shape[-2:], mode="bicubic", align_corners=False)
    deviation, mean = torch.std_mean(field, dim=(2, 3), keepdim=True)
    return (field - mean) / deviation


def blob(images: Tensor, smallest: float, largest: float) -> Tensor:
    """Draw regions where smooth noise is high, of a size between two fractions of the image."""
    area = uniform(images, math.log(smallest), math.log(largest)).exp()
    threshold = math.sqrt(2) * torch.erfinv(1 - 2 * area)  # exceeded by a normal variable with probability `area`
    return (_field(images) > threshold).to(images.dtype)


def hairlines(images: Tensor) -> Tensor:
    """Draw thin pieces of the contour lines of smooth noise."""
    line = _field(images).abs() < uniform(images, 0.02, 0.12)
    piece = _field(images) > uniform(images, 0.3, 1.5)
    return (line & piece).to(images.dtype)


def _colour(images: Tensor) -> Tensor:
    return torch.rand(*images.shape[:2], 1, 1, device=images.device).expand_as(images)


def _texture(images: Tensor) -> Tensor:
    return _colour(images) + 0.25 * _field(images)


def _shift(images: Tensor) -> Tensor:
    shifts = [_integer(side // 8, side - side // 8) for side in images.shape[-2:]]
    return torch.roll(images, shifts, dims=(2, 3))


def _swap(images: Tensor) -> Tensor:
    return _shift(images.roll(1, dims=0))


def _recolour(images: Tensor) -> Tensor:
    tint = 0.1 * torch.randn(*images.shape[:2], 1, 1, device=images.device)
    return images * uniform(images, 0.5, 1.6) + uniform(images, -0.3, 0.3) + tint


FILLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "colour": _colour,
    "texture": _texture,
    "shift": _shift,
    "swap": _swap,
    "recolour": _recolour,
}
