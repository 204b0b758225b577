"""Calibrates the maps and the score of a trained LampAE; the calibration is chosen without any real defect."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from anomalib_lamp.auroc import auroc
from anomalib_lamp.corruption import Corruption, repeatably

from .anomaly_map import CALIBRATIONS
from .score import MapAndScore
from .torch_model import LampAEModel

PROBE_AREAS = (0.0015, 0.05)  # smallest and largest damaged region, as fractions of the image
DAMAGE_THRESHOLD = 0.03  # mean difference over channels from which a pixel counts as damaged
CALIBRATION_BONUS = 0.02  # by how much a plain map must be better on damaged copies to be preferred to a calibrated one
PIXEL_STRIDE = 2  # every second row and column counts for the pixels' AUROC
CHUNK_SIZE = 16
MIN_IMAGES = 4

Errors = dict[str, Tensor]


@dataclass(frozen=True)
class Choice:
    """A calibration, and how well maps and scores calibrated so tell damaged from normal held-out images.

    Attributes:
        calibration: Calibration of the maps.
        quality: Mean of the AUROC of images and the AUROC of pixels, in [0, 1]; ``None`` if there was no choice.
    """

    calibration: str
    quality: float | None = None

    def __str__(self) -> str:
        """Return the choice as an init argument of LampAE."""
        quality = "" if self.quality is None else f" (AUROC on damaged copies {self.quality:.3f})"
        return f"calibration={self.calibration}{quality}"


@torch.no_grad()
def calibrate(
    model: LampAEModel,
    normal: Tensor,
    calibrations: Sequence[str] = CALIBRATIONS,
    kinds: Sequence[str] | None = None,
) -> Choice:
    """Choose a calibration, and calibrate the model's maps and scores with normal images.

    Each candidate has to tell normal images from the same images with one small damaged region. Location statistics
    come from one half of the images when the other half is judged, so a calibration that only fits the images it was
    made from gains nothing. Still, calibration by location is preferred unless plain maps are better by
    ``CALIBRATION_BONUS``, since real defects are fainter than the damage. No test image is needed. The damage is always
    the same, whatever state torch's generators have.

    Args:
        model: Trained model in evaluation mode; changed in place.
        normal: Normal images that the model has not learnt, (N, 3, H, W) in [0, 1], N at least 4.
        calibrations: Calibrations to choose from.
        kinds: Fillings of the damaged regions; all if not given.

    Raises:
        ValueError: If there are fewer than 4 images.
    """
    if len(normal) < MIN_IMAGES:
        msg = f"Expected at least {MIN_IMAGES} normal images to calibrate with, got {len(normal)}."
        raise ValueError(msg)
    clean = _errors_of(model, normal)
    choice = Choice(calibrations[0])
    if len(calibrations) > 1:
        damaged = damaged_copies(normal, kinds)
        masks = (damaged - normal).abs().mean(dim=1) > DAMAGE_THRESHOLD
        halves = list(_halves(clean, _errors_of(model, damaged), masks))
        candidates = [Choice(name, quality(model.map_and_score, halves, name)) for name in calibrations]
        choice = max(candidates, key=preference)
    model.map_and_score.calibration = choice.calibration
    model.map_and_score.calibrate(clean)
    return choice


def preference(choice: Choice) -> float:
    """Return the quality, with an advantage for calibration by location.

    Example:
        >>> preference(Choice("location", 0.90)) > preference(Choice("none", 0.91))
        True
    """
    return (choice.quality or 0) + CALIBRATION_BONUS * (choice.calibration == "location")


def damaged_copies(images: Tensor, kinds: Sequence[str] | None = None) -> Tensor:
    """Return the images with one small region changed in most of them, always in the same way."""
    corruption = Corruption(kinds=kinds, regions=1, noise=0.0, areas=PROBE_AREAS)
    return repeatably(partial(_in_chunks, corruption), images)


def _in_chunks(corruption: Corruption, images: Tensor) -> Tensor:
    return torch.cat([corruption(chunk) for chunk in images.split(CHUNK_SIZE)])


def _errors_of(model: LampAEModel, images: Tensor) -> Errors:
    chunks = [model.errors(chunk) for chunk in images.split(CHUNK_SIZE)]
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}


class Half(NamedTuple):
    """Half of the held-out images: errors as they are and damaged, where the damage is, and errors of the others."""

    calibrate_by: Errors
    normal: Errors
    damaged: Errors
    masks: Tensor


def _halves(normal: Errors, damaged: Errors, masks: Tensor) -> Iterator[Half]:
    """Yield each half of the images, with the normal errors of the other half to calibrate by."""
    for first in (0, 1):
        yield Half(
            calibrate_by={name: error[1 - first :: 2] for name, error in normal.items()},
            normal={name: error[first::2] for name, error in normal.items()},
            damaged={name: error[first::2] for name, error in damaged.items()},
            masks=masks[first::2],
        )


def quality(map_and_score: MapAndScore, halves: Sequence[Half], calibration: str) -> float:
    """Return how well calibrated maps and scores tell damaged from normal pixels and images, in [0, 1].

    Args:
        map_and_score: What makes maps and scores; left as it is.
        halves: Both halves of the held-out images.
        calibration: The calibration.

    Returns:
        Mean of the AUROC of pixels and the AUROC of images; 0.5 for either where nothing, or everything, is damaged.
    """
    trial = copy.deepcopy(map_and_score)
    trial.calibration = calibration
    maps, scores, labels = [], [], []
    for half in halves:
        trial.calibrate(half.calibrate_by)
        damaged_maps, damaged_scores = trial(half.damaged)
        is_damaged = half.masks.flatten(1).any(dim=1)
        maps.append(damaged_maps[:, 0])
        scores += [trial(half.normal)[1], damaged_scores]
        labels += [torch.zeros_like(is_damaged), is_damaged]
    masks = torch.cat([half.masks for half in halves])
    of_pixels = auroc(*(pixels[:, ::PIXEL_STRIDE, ::PIXEL_STRIDE] for pixels in (masks, torch.cat(maps))))
    of_images = auroc(torch.cat(labels), torch.cat(scores))
    return sum(0.5 if value is None else value for value in (of_pixels, of_images)) / 2
