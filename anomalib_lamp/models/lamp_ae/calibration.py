"""Decides, without any real defect, how a trained LampAE makes maps and scores, and calibrates its maps."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from anomalib_lamp.corruption import Corruption, repeatably

from .anomaly_map import CALIBRATIONS, AnomalyMapGenerator, pool_score
from .torch_model import LampAEModel

METRICS_TO_TRY = ("ssim+msgms", "msgms", "l1+ssim")
POOLINGS_TO_TRY = ("max", "topk")
SMALL = (0.0015, 0.05)  # areas of the defects to tell normal images from, as fractions of the image
VISIBLE = 0.03  # mean difference over channels from which a pixel counts as damaged
CLEARLY = 0.02  # how much better a map must be on damaged copies to be preferred to a calibrated one
CHUNK = 16


@dataclass(frozen=True)
class Choice:
    """How maps and scores are made, and how well that told damaged from normal held-out images.

    Attributes:
        metric: Metric of the map.
        calibration: Calibration of the map.
        pooling: Pooling of the score.
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


@torch.no_grad()
def calibrate(
    model: LampAEModel,
    normal: Tensor,
    metrics: Sequence[str] = METRICS_TO_TRY,
    calibrations: Sequence[str] = CALIBRATIONS,
    poolings: Sequence[str] = POOLINGS_TO_TRY,
    kinds: Sequence[str] | None = None,
) -> Choice:
    """Choose metric, calibration and pooling, and calibrate the model's maps with normal images.

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
    candidates = list(itertools.product(metrics, calibrations, poolings))
    clean = _in_chunks(model.reconstruct, normal)
    choice = Choice(*candidates[0])
    if len(candidates) > 1:
        damaged = _damage(normal, kinds)
        repaired = _in_chunks(model.reconstruct, damaged)
        masks = (damaged - normal).abs().mean(dim=1, keepdim=True) > VISIBLE
        choice = max(
            (
                candidate
                for metric in metrics
                for candidate in _judge(
                    model, metric, calibrations, poolings, (clean, normal), (repaired, damaged), masks
                )
            ),
            key=_merit,
        )
    maps = model.anomaly_map_generator
    maps.metric, maps.calibration, model.pooling = choice.metric, choice.calibration, choice.pooling
    maps.calibrate(_in_chunks(maps.errors, clean, normal))
    return choice


def _merit(choice: Choice) -> float:
    """Return the quality, with an advantage for calibrated maps: real defects are fainter than the damage here."""
    return (choice.quality or 0) + CLEARLY * (choice.calibration == "location")


def _damage(images: Tensor, kinds: Sequence[str] | None) -> Tensor:
    """Return the images with one small region changed in most of them."""
    corruption = Corruption(kinds=kinds, regions=1, noise=0.0, areas=SMALL)
    return repeatably(partial(_in_chunks, corruption), images)


def _in_chunks(function: Callable[..., Tensor], *images: Tensor) -> Tensor:
    return torch.cat([function(*chunks) for chunks in zip(*(each.split(CHUNK) for each in images), strict=True)])


def _judge(
    model: LampAEModel,
    metric: str,
    calibrations: Sequence[str],
    poolings: Sequence[str],
    normal: tuple[Tensor, Tensor],
    damaged: tuple[Tensor, Tensor],
    masks: Tensor,
) -> list[Choice]:
    """Return all candidates of a metric with their quality."""
    maps = AnomalyMapGenerator(metric, model.anomaly_map_generator.sigma).to(masks.device)
    errors = [_in_chunks(maps.errors, *normal), _in_chunks(maps.errors, *damaged)]
    labels = torch.cat([torch.zeros(len(masks), dtype=torch.bool), masks.flatten(1).any(1).cpu()])
    choices = []
    for calibration in calibrations:
        maps.calibration = calibration
        damaged_maps, for_scores = _cross_calibrated(maps, *errors)
        pixels = _auroc(masks[..., ::2, ::2], damaged_maps[..., ::2, ::2])
        for pooling in poolings:
            scores = pool_score(for_scores, pooling, model.topk_fraction)
            choices.append(Choice(metric, calibration, pooling, (_auroc(labels, scores) + pixels) / 2))
    return choices


def _cross_calibrated(maps: AnomalyMapGenerator, normal: Tensor, damaged: Tensor) -> tuple[Tensor, Tensor]:
    """Calibrate each half of the images by the normal errors of the other half.

    Returns:
        The maps of the damaged images, and the maps that the scores of normal and damaged images are pooled from.
    """
    both = torch.stack([normal, damaged])
    made, for_scores = torch.empty_like(both[:, :, :1]), torch.empty_like(both[:, :, :1])
    for half in (0, 1):
        maps.calibrate(normal[1 - half :: 2])
        for kind in (0, 1):
            made[kind, half::2] = maps.map_of(both[kind, half::2])
            for_scores[kind, half::2] = maps.to_score(made[kind, half::2])
    return made[1], for_scores.flatten(0, 1)


def _auroc(truth: Tensor, values: Tensor) -> float:
    """Return scikit-learn's area under the ROC curve; 0.5 where nothing is damaged."""
    if not truth.any() or truth.all():
        return 0.5
    return float(roc_auc_score(truth.flatten().cpu().numpy(), values.flatten().cpu().numpy()))
