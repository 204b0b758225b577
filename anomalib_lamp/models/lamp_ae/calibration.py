"""Decides, without any real defect, how a trained LampAE makes maps and scores, and calibrates both."""

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from anomalib_lamp.corruption import Corruption, repeatably

from .anomaly_map import CALIBRATIONS, MAP_METRIC, AnomalyMapGenerator
from .torch_model import LampAEModel

METRICS_TO_TRY = (MAP_METRIC, "ssim+msgms", "l1+ssim")
POOLINGS_TO_TRY = ("max", "topk")
SMALL = (0.0015, 0.05)  # areas of the defects to tell normal images from, as fractions of the image
VISIBLE = 0.03  # mean difference over channels from which a pixel counts as damaged
CLEARLY = 0.02  # how much better a map must be on damaged copies to be preferred to a calibrated one
CHUNK = 16

Errors = dict[str, Tensor]


@dataclass(frozen=True)
class Choice:
    """How maps and scores are made, and how well that told damaged from normal held-out images.

    Attributes:
        metric: Metric of the map.
        calibration: Calibration of the map.
        pooling: Pooling of the maps that make the score.
        quality: Mean of the AUROC of images and the AUROC of pixels, in [0, 1]; ``None`` if there was no choice.
    """

    metric: str
    calibration: str
    pooling: str
    quality: float | None = None

    def __str__(self) -> str:
        """Return the choice as init arguments of LampAE."""
        choice = f"map_metric={self.metric}, calibration={self.calibration}, pooling={self.pooling}"
        return choice if self.quality is None else f"{choice} (AUROC on damaged copies {self.quality:.3f})"


class _Half(NamedTuple):
    """Half of the held-out images: errors as they are and damaged, where the damage is, and errors of the others."""

    calibrate_by: Errors
    normal: Errors
    damaged: Errors
    masks: Tensor


@torch.no_grad()
def calibrate(
    model: LampAEModel,
    normal: Tensor,
    metrics: Sequence[str] = METRICS_TO_TRY,
    calibrations: Sequence[str] = CALIBRATIONS,
    poolings: Sequence[str] = POOLINGS_TO_TRY,
    kinds: Sequence[str] | None = None,
) -> Choice:
    """Choose metric, calibration and pooling, and calibrate the model's maps and scores with normal images.

    Each candidate has to tell normal images from the same images with one small damaged region. Location statistics
    come from one half of the images when the other half is judged, so a calibration that only fits the images it was
    made from gains nothing. Still, a calibrated map is preferred unless another is clearly better. No test image is
    needed. The damage is always the same, whatever torch's generators hold.

    Args:
        model: Trained model in evaluation mode; changed in place.
        normal: Normal images that the model has not learnt, (N, 3, H, W) in [0, 1], N at least 4.
        metrics: Metrics to choose from.
        calibrations: Calibrations to choose from.
        poolings: Poolings to choose from.
        kinds: Fillings of the damaged regions; all if not given.

    Raises:
        ValueError: If there are fewer than 4 images.
    """
    if len(normal) < 4:
        msg = f"Expected at least 4 normal images to calibrate with, got {len(normal)}."
        raise ValueError(msg)
    clean = _errors_of(model, normal, metrics)
    choice = Choice(metrics[0], calibrations[0], poolings[0])
    if len(metrics) * len(calibrations) * len(poolings) > 1:
        damaged = _damage(normal, kinds)
        masks = (damaged - normal).abs().mean(dim=1) > VISIBLE
        halves = list(_halves(clean, _errors_of(model, damaged, metrics), masks))
        for_pixels = {
            (metric, calibration): _pixel_auroc(model, halves, metric, calibration)
            for metric, calibration in itertools.product(metrics, calibrations)
        }
        for_images = {
            (calibration, pooling): _image_auroc(model, halves, calibration, pooling)
            for calibration, pooling in itertools.product(calibrations, poolings)
        }
        choice = max(
            (
                Choice(*how, quality=(for_pixels[how[:2]] + for_images[how[1:]]) / 2)
                for how in itertools.product(metrics, calibrations, poolings)
            ),
            key=_merit,
        )
    model.decide(choice.metric, choice.calibration, choice.pooling)
    model.calibrate(clean)
    return choice


def _merit(choice: Choice) -> float:
    """Return the quality, with an advantage for calibrated maps: real defects are fainter than the damage here."""
    return (choice.quality or 0) + CLEARLY * (choice.calibration == "location")


def _damage(images: Tensor, kinds: Sequence[str] | None) -> Tensor:
    """Return the images with one small region changed in most of them."""
    corruption = Corruption(kinds=kinds, regions=1, noise=0.0, areas=SMALL)
    return repeatably(partial(_in_chunks, corruption), images)


def _in_chunks(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return torch.cat([function(some) for some in images.split(CHUNK)])


def _errors_of(model: LampAEModel, images: Tensor, metrics: Sequence[str]) -> Errors:
    """Return the errors (N, H, W) of images, for the score and for maps by any of the metrics."""
    names = [name for metric in metrics for name in metric.split("+")]
    chunks = [model.errors(model.reconstruct(some), some, names) for some in images.split(CHUNK)]
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _halves(normal: Errors, damaged: Errors, masks: Tensor) -> Iterator[_Half]:
    """Yield each half of the images, with the normal errors of the other half to calibrate by."""
    for first in (0, 1):
        yield _Half(
            calibrate_by={name: error[1 - first :: 2] for name, error in normal.items()},
            normal={name: error[first::2] for name, error in normal.items()},
            damaged={name: error[first::2] for name, error in damaged.items()},
            masks=masks[first::2],
        )


def _pixel_auroc(model: LampAEModel, halves: Sequence[_Half], metric: str, calibration: str) -> float:
    """Return how well calibrated maps of damaged images tell their damaged pixels from the others."""
    generator = AnomalyMapGenerator(metric, model.anomaly_map_generator.sigma, calibration).to(halves[0].masks.device)
    maps = []
    for half in halves:
        generator.calibrate(half.calibrate_by)
        maps.append(generator.map_of(half.damaged)[:, 0])
    masks = torch.cat([half.masks for half in halves])
    return _auroc(masks[:, ::2, ::2], torch.cat(maps)[:, ::2, ::2])


def _image_auroc(model: LampAEModel, halves: Sequence[_Half], calibration: str, pooling: str) -> float:
    """Return how well calibrated scores tell damaged images from normal ones."""
    generator = copy.deepcopy(model.score_generator)
    generator.set_calibration(calibration)
    generator.pooling = pooling
    scores: list[Tensor] = []
    labels: list[Tensor] = []
    for half in halves:
        generator.calibrate(half.calibrate_by)
        is_damaged = half.masks.flatten(1).any(dim=1)
        scores += [generator(half.normal), generator(half.damaged)]
        labels += [torch.zeros_like(is_damaged), is_damaged]
    return _auroc(torch.cat(labels), torch.cat(scores))


def _auroc(truth: Tensor, values: Tensor) -> float:
    """Return scikit-learn's area under the ROC curve; 0.5 where nothing is damaged."""
    if not truth.any() or truth.all():
        return 0.5
    return float(roc_auc_score(truth.flatten().cpu().numpy(), values.flatten().cpu().numpy()))
