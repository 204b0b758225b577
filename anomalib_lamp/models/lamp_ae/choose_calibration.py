"""Calibrates the map and the score of a trained LampAE; how is chosen without any real defect."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from anomalib_lamp.auroc import auroc

from .anomaly_map import CALIBRATIONS
from .probes import probes
from .score import MIN_IMAGES_FOR_PEAKS, MapAndScore
from .torch_model import LampAEModel

MAX_PROBED = 16  # normal images that are damaged
DAMAGE_THRESHOLD = 0.015  # mean difference over channels from which a pixel counts as damaged
CALIBRATION_BONUS = 0.02  # by how much a plain map must be better on damaged copies to be preferred to a calibrated one
PIXEL_STRIDE = 2  # every second row and column counts for the pixels' AUROC
CHUNK_SIZE = 16
MIN_IMAGES = 4

Errors = dict[str, Tensor]


@dataclass(frozen=True)
class Choice:
    """A calibration, weights of the evidence, and how well both tell damaged from normal held-out images.

    Attributes:
        calibration: Calibration of the maps.
        quality: Mean of the AUROC of images and the AUROC of pixels, in [0, 1]; ``None`` if there was no choice.
        weights: Weight of every kind of evidence, in their order; empty to leave them as they are.
        names: Names of the kinds of evidence.
    """

    calibration: str
    quality: float | None = None
    weights: list[float] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return the calibration as an init argument of LampAE, and the weights."""
        quality = "" if self.quality is None else f" (AUROC on damaged copies {self.quality:.3f})"
        weights = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(self.names, self.weights, strict=False))
        return f"calibration={self.calibration}{quality}" + (f"; weights of the evidence: {weights}" if weights else "")


@torch.no_grad()
def calibrate(model: LampAEModel, normal: Tensor, calibrations: Sequence[str] = CALIBRATIONS) -> Choice:
    """Choose a calibration and weights of the evidence, and calibrate the model's map and score with normal images.

    Each candidate has to tell normal images from the same images with one small damaged region, of kinds that the model
    has not learnt to repair. Statistics come from one half of the images when the other half is judged, so a
    calibration that only fits the images it was made from gains nothing. Still, calibration by location is preferred
    unless plain maps are better by ``CALIBRATION_BONUS``, since real defects are fainter than the damage.

    The weight of a kind of evidence is its prior times ``2 AUROC - 1`` of its peaks on the damaged copies, 0 below an
    AUROC of 0.5. With fewer than 4 images to calibrate by in each half, weights stay what they are before.

    No test image is needed. The damage is always the same, whatever state torch's generators have.

    Args:
        model: Trained model in evaluation mode; changed in place.
        normal: Normal images that the model has not learnt, (N, 3, H, W) in [0, 1], N at least 4.
        calibrations: Calibrations to choose from.

    Raises:
        ValueError: If there are fewer than 4 images.
    """
    if len(normal) < MIN_IMAGES:
        msg = f"Expected at least {MIN_IMAGES} normal images to calibrate with, got {len(normal)}."
        raise ValueError(msg)
    map_and_score = model.map_and_score
    clean = _errors_of(model, normal)
    choice = Choice(calibrations[0])
    if len(calibrations) > 1 or len(map_and_score.generators) > 1:
        halves = list(_halves(model, normal, clean))
        candidates = [judge(map_and_score, halves, name) for name in calibrations]
        choice = max(candidates, key=preference)
        map_and_score.weights.copy_(torch.tensor(choice.weights))
    map_and_score.calibration = choice.calibration
    map_and_score.calibrate(clean)
    return choice


def preference(choice: Choice) -> float:
    """Return the quality, with an advantage for calibration by location.

    Example:
        >>> preference(Choice("location", 0.90)) > preference(Choice("none", 0.91))
        True
    """
    return (choice.quality or 0) + CALIBRATION_BONUS * (choice.calibration == "location")


def _errors_of(model: LampAEModel, images: Tensor) -> Errors:
    chunks = [model.errors(chunk) for chunk in images.split(CHUNK_SIZE)]
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}


class Half(NamedTuple):
    """Half of the held-out images: errors as they are and damaged, where the damage is, and errors of the others."""

    calibrate_by: Errors
    normal: Errors
    damaged: Errors
    masks: Tensor


def _halves(model: LampAEModel, images: Tensor, clean: Errors) -> Iterator[Half]:
    """Yield each half of the images, with the normal errors of the other half to calibrate by."""
    for first in (0, 1):
        undamaged = images[first::2][: MAX_PROBED // 2]
        damaged = torch.cat(probes(undamaged))
        copies = undamaged.repeat(len(damaged) // len(undamaged), 1, 1, 1)
        yield Half(
            calibrate_by={name: error[1 - first :: 2] for name, error in clean.items()},
            normal={name: error[first::2] for name, error in clean.items()},
            damaged=_errors_of(model, damaged),
            masks=(damaged - copies).abs().mean(dim=1, keepdim=True) > DAMAGE_THRESHOLD,
        )


def judge(map_and_score: MapAndScore, halves: Sequence[Half], calibration: str) -> Choice:
    """Return weights for a calibration, and how well maps and scores tell damaged from normal pixels and images.

    Args:
        map_and_score: What makes maps and scores; left as it is.
        halves: Both halves of the held-out images.
        calibration: The calibration.

    Returns:
        The choice; its quality is the mean of the AUROC of pixels and the AUROC of images, 0.5 for either where
        nothing, or everything, is damaged.
    """
    trial = copy.deepcopy(map_and_score)
    trial.calibration = calibration
    normal, damaged = [], []
    for half in halves:
        trial.calibrate(half.calibrate_by)
        normal.append(trial.standardised(half.normal))
        damaged.append(trial.standardised(half.damaged))
    by_kind = [[torch.cat(maps) for maps in zip(*both, strict=True)] for both in (normal, damaged)]
    is_damaged = torch.cat([half.masks.flatten(1).any(dim=1) for half in halves])
    labels = torch.cat([is_damaged.new_zeros(len(by_kind[0][0])), is_damaged])
    enough = min(len(half.calibrate_by[trial.metrics[0]]) for half in halves) >= MIN_IMAGES_FOR_PEAKS
    if enough:
        peaks = [torch.cat([maps.amax((1, 2, 3)) for maps in pair]) for pair in zip(*by_kind, strict=True)]
        trial.weights.copy_(weights_of([auroc(labels, each) for each in peaks], trial.prior))
    maps, damaged_scores = trial.combine(by_kind[1])
    scores = torch.cat([trial.combine(by_kind[0])[1], damaged_scores])
    masks = F.adaptive_max_pool2d(torch.cat([half.masks for half in halves]).float(), maps.shape[-2:]) > 0
    of_pixels = auroc(*(pixels[..., ::PIXEL_STRIDE, ::PIXEL_STRIDE] for pixels in (masks, maps)))
    parts = (0.5 if value is None else value for value in (of_pixels, auroc(labels, scores)))
    return Choice(calibration, sum(parts) / 2, trial.weights.tolist(), trial.names)


def weights_of(aurocs: Sequence[float | None], prior: Tensor) -> Tensor:
    """Return weights that sum to 1 of kinds of evidence with these AUROCs; the prior if none is above 0.5.

    Example:
        >>> weights_of([0.75, 1.0, 0.4], torch.tensor([0.25, 0.25, 0.5]))
        tensor([0.3333, 0.6667, 0.0000])
    """
    above = prior.new_tensor([max(0.0, 2 * (value or 0.5) - 1) for value in aurocs]) * prior
    return above / above.sum() if above.sum() else prior
