"""What is measured of a trained model: quality from unclipped scores, latency apart from everything else, memory."""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import ImageBatch
from anomalib.metrics import AUPRO
from anomalib.models import AnomalibModule
from lightning.pytorch import Callback
from torch import Tensor
from torchmetrics.functional.classification import binary_stat_scores

from anomalib_lamp.auroc import auroc

from .records import Latency, Metrics

MIB = 2**20
WARM_UP_RUNS, MIN_TIMED_RUNS, MIN_TIMED_SECONDS = 2, 5, 1.0


class TestPredictions(Callback):
    """Keep the scores and maps of the test set as the model gives them, before the post-processor clips them.

    Lightning calls the callbacks of an Engine before those of the model, and the post-processor is one of these.
    """

    __test__ = False  # not a test, whatever its name

    def __init__(self) -> None:
        self.paths: list[str] = []
        self._scores: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._maps: list[Tensor] = []
        self._masks: list[Tensor] = []

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any, **kwargs: Any) -> None:
        """Keep what the post-processor is about to change; the output of anomalib's test step is its ImageBatch."""
        del trainer, pl_module, args, kwargs
        batch = outputs
        score = batch.pred_score if batch.pred_score is not None else batch.anomaly_map.amax((-2, -1))
        self.paths += batch.image_path
        self._scores.append(score.detach().float().flatten().cpu())
        self._labels.append(batch.gt_label.detach().bool().flatten().cpu())
        if batch.anomaly_map is not None:
            self._maps.append(_stack(batch.anomaly_map).float())
        if batch.gt_mask is not None:
            self._masks.append(_stack(batch.gt_mask).bool())

    @property
    def scores(self) -> Tensor:
        """Return the image scores, of shape (N,)."""
        return torch.cat(self._scores)

    @property
    def labels(self) -> Tensor:
        """Return which images have a defect, of shape (N,)."""
        return torch.cat(self._labels)

    @property
    def maps(self) -> Tensor | None:
        """Return the anomaly maps, of shape (N, H, W), or ``None`` if the model makes none."""
        return torch.cat(self._maps) if len(self._maps) == len(self._scores) else None

    @property
    def masks(self) -> Tensor | None:
        """Return the masks of the defects, of shape (N, H, W), or ``None`` if the data set has none."""
        return torch.cat(self._masks) if len(self._masks) == len(self._scores) else None


def _stack(maps: Tensor) -> Tensor:
    """Return maps of shape (N, H, W) or (N, 1, H, W) as (N, H, W) on the CPU."""
    return maps.detach().cpu().reshape(-1, *maps.shape[-2:])


def measure_quality(predictions: TestPredictions, image_threshold: float, pixel_threshold: float) -> Metrics:
    """Return the quality on the test set.

    AUROCs are scikit-learn's, AUPRO (up to a false-positive rate of 0.3) is anomalib's, all from unclipped values.

    Args:
        predictions: What the model gave for the test set.
        image_threshold: Threshold of the scores, in their own units; NaN for none.
        pixel_threshold: Threshold of the maps, in their own units; NaN for none.
    """
    quality = {
        "image_AUROC": auroc(predictions.labels, predictions.scores),
        "image_F1": _f1(predictions.labels, predictions.scores, image_threshold),
    }
    maps, masks = predictions.maps, predictions.masks
    if maps is not None and masks is not None and maps.shape == masks.shape:
        quality |= {
            "pixel_AUROC": auroc(masks, maps),
            "pixel_F1": _f1(masks, maps, pixel_threshold),
            "AUPRO": _aupro(masks, maps),
        }
    return Metrics(**quality)


def _f1(truth: Tensor, scores: Tensor, threshold: float) -> float | None:
    """Return the F1 score at a threshold, from which on values are anomalous, or ``None`` where there is none."""
    if np.isnan(threshold) or not truth.any():
        return None
    counts = binary_stat_scores((scores >= threshold).flatten(), truth.flatten())
    true_positives, false_positives, _, false_negatives, _ = counts.tolist()
    return 2 * true_positives / (2 * true_positives + false_positives + false_negatives)


def _aupro(masks: Tensor, maps: Tensor) -> float | None:
    """Return the area under the per-region overlap curve, or ``None`` where no pixel is defective."""
    if not masks.any():
        return None
    metric = AUPRO(fields=["anomaly_map", "gt_mask"])
    no_images = torch.zeros(()).expand(len(maps), 3, *maps.shape[1:])
    metric.update(ImageBatch(image=no_images, anomaly_map=maps, gt_mask=masks))
    return float(metric.compute())


def measure_latency(model: AnomalibModule, batch_sizes: Sequence[int], image_size: int) -> list[Latency]:
    """Return the time of a forward pass, pre- and post-processing included, for several batch sizes.

    After two passes to warm up, every pass is timed by itself, for at least a second and five times.

    Args:
        model: A trained model.
        batch_sizes: Numbers of images.
        image_size: Side of the square images in pixels.
    """
    model.eval()
    return [_latency(model, batch_size, image_size) for batch_size in batch_sizes]


def _latency(model: AnomalibModule, batch_size: int, image_size: int) -> Latency:
    images = torch.rand(batch_size, 3, image_size, image_size, device=model.device)
    times: list[float] = []
    with torch.inference_mode():
        for _ in range(WARM_UP_RUNS):
            _forward_seconds(model, images)
        while len(times) < MIN_TIMED_RUNS or sum(times) < MIN_TIMED_SECONDS:
            times.append(_forward_seconds(model, images))
    low, median, high = np.percentile(times, (25, 50, 75)) * 1e3
    return Latency(batch_size=batch_size, image_size=image_size, median_ms=median, iqr_ms=high - low, runs=len(times))


def _forward_seconds(model: AnomalibModule, images: Tensor) -> float:
    """Return how long a forward pass takes, until its device has done it."""
    begun = time.perf_counter()
    model(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - begun


def exported_mib(model: AnomalibModule) -> float:
    """Return the size of the model exported for torch, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        model.to_torch(Path(folder))
        return sum(file.stat().st_size for file in Path(folder).rglob("*.pt")) / MIB


def peak_rss_mib() -> float | None:
    """Return the largest resident memory that this process has had, in MiB, or ``None`` where Python cannot tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


def peak_gpu_mib() -> float | None:
    """Return the largest GPU memory that this process has held, in MiB, or ``None`` without a GPU."""
    return torch.cuda.max_memory_allocated() / MIB if torch.cuda.is_available() else None
