"""Damage of kinds that LampAE does not learn to repair, to find out what each kind of evidence is worth."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from anomalib_lamp.corruption import blob, hairlines, repeatably, uniform
from anomalib_lamp.functional import gaussian_blur

PROBE_AREAS = (0.005, 0.05)  # smallest and largest damaged region, as fractions of the image
SOFT_EDGE = 1 / 64  # of the smaller side: standard deviation of the blur of a stain's edge
OPACITY = 0.5  # of the damage: stronger, nearly everything finds it, and nothing is learnt about the evidence
SMOOTHING = 1 / 24  # of the smaller side: what is smaller disappears in a smoothed region


def probes(images: Tensor, kinds: Sequence[str] | None = None) -> list[Tensor]:
    """Return copies of normal images, each with one damaged region, for every kind of damage; always the same.

    None of the kinds is among those that pixels or features are trained with: ``scratch`` (thin lines, brighter or
    darker), ``smoothed`` (a region without its detail), ``displaced`` (a piece moved a little), ``stain`` (a tint with
    soft edges). All are blended in by half.

    Args:
        images: Images (N, 3, H, W) in [0, 1].
        kinds: Kinds of damage; all if not given.

    Example:
        >>> [copies.shape for copies in probes(torch.rand(3, 3, 64, 64), ["stain"])]
        [torch.Size([3, 3, 64, 64])]
    """
    return [torch.lerp(images, repeatably(PROBES[kind], images), OPACITY) for kind in kinds or PROBES]


def _scratch(images: Tensor) -> Tensor:
    tone = uniform(images, 0.1, 0.4) * (2 * (uniform(images, 0, 1) < 0.5) - 1)
    return (images + tone * hairlines(images)).clamp(0, 1)


def _smoothed(images: Tensor) -> Tensor:
    smooth = gaussian_blur(images, SMOOTHING * min(images.shape[-2:]))
    return torch.lerp(images, smooth, blob(images, *PROBE_AREAS))


def _displaced(images: Tensor) -> Tensor:
    shift = [side // 16 for side in images.shape[-2:]]
    return torch.lerp(images, torch.roll(images, shift, dims=(2, 3)), blob(images, *PROBE_AREAS))


def _stain(images: Tensor) -> Tensor:
    soft = gaussian_blur(blob(images, *PROBE_AREAS), SOFT_EDGE * min(images.shape[-2:]))
    colour = torch.rand(*images.shape[:2], 1, 1, device=images.device)
    return torch.lerp(images, colour.expand_as(images), uniform(images, 0.2, 0.6) * soft)


PROBES: dict[str, Callable[[Tensor], Tensor]] = {
    "scratch": _scratch,
    "smoothed": _smoothed,
    "displaced": _displaced,
    "stain": _stain,
}
