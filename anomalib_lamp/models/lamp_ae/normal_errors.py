"""Statistics of the errors of normal images: at each location, by image, and towards the border."""

import torch
from scipy.stats import linregress
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from anomalib_lamp.functional import gaussian_blur

BORDER_WIDTH = 1 / 16  # of the smaller side: errors weigh less there in the score
LEVEL_PATCHES_PER_SIDE = 16
SMALLEST_ERROR = 1e-6  # whose logarithm is taken
MIN_IMAGES_FOR_LEVEL = 8  # fewer cannot tell what an image's level means


def image_level(error: Tensor) -> Tensor:
    """Return the level of each image's error (N, 1, H, W): the median over patches of their mean, (N, 1, 1, 1).

    Example:
        >>> image_level(torch.arange(256.0).reshape(1, 1, 16, 16)).flatten()
        tensor([128.])
    """
    side = max(1, min(error.shape[-2:]) // LEVEL_PATCHES_PER_SIDE)
    patches = F.avg_pool2d(error, side).flatten(1).sort(dim=1).values
    return patches[:, patches.shape[1] // 2, None, None, None].clamp(min=SMALLEST_ERROR)


def level_exponent(error: Tensor) -> Tensor:
    """Return how far an image's level has to be divided out of its error, from 0 (not at all) to 1.

    It is the slope of the logarithm of the largest errors on that of the levels across normal images, times the
    adjusted share of variance that the levels explain: as good as 0 where they say nothing about the largest errors.

    Args:
        error: Errors of normal images, (N, 1, H, W); with fewer than 8 images the exponent is 0.

    Example:
        >>> textures = torch.rand(20, 1, 64, 64) * torch.linspace(0.1, 1, 20)[:, None, None, None]
        >>> level_exponent(textures) > 0.9
        tensor(True)
    """
    weights = border_weights(error.shape[-2], error.shape[-1], error.device)
    levels, peaks = image_level(error).flatten(), (error * weights).amax((1, 2, 3)).clamp(min=SMALLEST_ERROR)
    if len(error) < MIN_IMAGES_FOR_LEVEL or levels.min() == levels.max():
        return error.new_zeros(())
    line = linregress(levels.log().cpu().numpy(), peaks.log().cpu().numpy())
    explained = 1 - (1 - line.rvalue**2) * (len(error) - 1) / (len(error) - 2)
    return error.new_tensor(line.slope * max(0, explained)).clamp(0, 1)


def location_statistics(errors: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (H, W) of errors at each location, taken over a neighbourhood as well.

    Args:
        errors: Errors (N, 1, H, W), N at least 2.
        sigma: Standard deviation, in pixels, of the neighbourhood; 0 for the location alone.
    """
    variance, mean = torch.var_mean(errors, dim=0, keepdim=True)
    if sigma:
        smooth_mean = gaussian_blur(mean, sigma)
        variance = gaussian_blur(variance + (mean - smooth_mean) ** 2, sigma)
        mean = smooth_mean
    return mean[0, 0], variance[0, 0].clamp(min=1e-12).sqrt()


def border_weights(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return weights (H, W) that rise from about 0.5 at the border to 1 inside.

    Example:
        >>> border_weights(64, 64)[32, :5]
        tensor([0.6250, 0.7500, 0.8750, 1.0000, 1.0000])
    """
    ramp = BORDER_WIDTH * min(height, width)
    rows, columns = (_steps_to_the_end(side, device) for side in (height, width))
    return 0.5 + 0.5 * (torch.minimum(rows[:, None], columns) / ramp).clamp(max=1)


def _steps_to_the_end(side: int, device: torch.device | None) -> Tensor:
    """Return 1, 2, 3, ..., 3, 2, 1."""
    return torch.minimum(torch.arange(1, side + 1, device=device), torch.arange(side, 0, -1, device=device))
