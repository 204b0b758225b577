"""From reconstruction errors to an image score."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .anomaly_map import MAP_METRIC, AnomalyMapGenerator, into_unit_interval

POOLINGS = ("max", "mean", "topk")
SCORE_METRICS = {"ssim": 1.0, MAP_METRIC: 2.5}  # the smoothing, in pixels, of each one's map
PEAKS_FROM = 8  # normal images: fewer cannot tell how far peaks spread
LEAST_SPREAD = 0.01  # of the logarithm of the odds of normal peaks
NEAREST = 1e-7  # peaks nearer to 0 or 1 count as being that near


class ScoreGenerator(nn.Module):
    r"""Score images by how far their largest errors lie above those of normal images.

    Each metric makes a map of its own, smoothed in its own way, for defects are found at different scales: the smallest
    ones where structure (SSIM) is hardly smoothed, larger ones and those of textures where more is taken together. A
    map is pooled to the image's peak; after :meth:`calibrate` with at least 8 images, the logarithm of the odds of each
    peak is standardised by those of normal images. The score is their mean :math:`z`, as
    :math:`\tfrac12 (1 + z / (|z| + 4))`: once calibrated, 0.5 is what normal images have on average.

    Args:
        metrics: Metrics, as :class:`~.anomaly_map.AnomalyMapGenerator` takes them, with the smoothing of their maps in
            pixels.
        calibration: ``none`` or ``location``, which needs :meth:`calibrate`.
        pooling: How the peak is taken from a map: ``max``, ``topk`` (mean of the largest values) or ``mean``.
        topk_fraction: For ``topk``: the fraction of pixels that counts, in (0, 1].

    Shape:
        Errors (N, H, W) in [0, 1] by metric to scores (N, 1) in (0, 1).

    Raises:
        ValueError: If an argument is unknown or out of range, or there is no metric.

    Example:
        >>> scores = ScoreGenerator({"l1": 1.0, "l2": 2.5})
        >>> scores({"l1": torch.rand(2, 32, 32), "l2": torch.rand(2, 32, 32)}).shape
        torch.Size([2, 1])
    """

    usual_peak: Tensor
    peak_spread: Tensor

    def __init__(
        self,
        metrics: Mapping[str, float],
        calibration: str = "none",
        pooling: str = "max",
        topk_fraction: float = 0.001,
    ) -> None:
        super().__init__()
        if not metrics:
            msg = "Expected score_metrics with at least one metric, such as {'ssim': 1.0}, got none."
            raise ValueError(msg)
        pool_score(torch.zeros(1, 1, 1, 1), pooling, topk_fraction)  # raises on a bad argument now, not after training
        self.maps: list[AnomalyMapGenerator] = nn.ModuleList(  # type: ignore[assignment]  # a list of modules
            AnomalyMapGenerator(metric, sigma, calibration) for metric, sigma in metrics.items()
        )
        self.pooling = pooling
        self.topk_fraction = topk_fraction
        self.register_buffer("usual_peak", torch.zeros(len(metrics)))
        self.register_buffer("peak_spread", torch.ones(len(metrics)))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics whose errors are needed."""
        return tuple(metric for maps in self.maps for metric in maps.metrics)

    def set_calibration(self, calibration: str) -> None:
        """Set the calibration of all maps."""
        for maps in self.maps:
            maps.calibration = calibration

    def calibrate(self, errors: Mapping[str, Tensor]) -> None:
        """Keep what the errors and peaks of normal images are like, at least 2 of them."""
        for maps in self.maps:
            maps.calibrate(errors)
        peaks = self._peaks(errors)
        if len(peaks) < PEAKS_FROM:
            self.usual_peak, self.peak_spread = torch.zeros_like(peaks[0]), torch.ones_like(peaks[0])
        else:
            spread, self.usual_peak = torch.std_mean(peaks, dim=0)
            self.peak_spread = spread.clamp(min=LEAST_SPREAD)

    def forward(self, errors: Mapping[str, Tensor]) -> Tensor:
        """Return the scores of images with these errors."""
        z = (self._peaks(errors) - self.usual_peak) / self.peak_spread
        return into_unit_interval(z.mean(dim=1, keepdim=True))

    def _peaks(self, errors: Mapping[str, Tensor]) -> Tensor:
        """Return the logarithm of the odds of every map's peak, (N, maps)."""
        peaks = [pool_score(maps.to_score(maps.map_of(errors)), self.pooling, self.topk_fraction) for maps in self.maps]
        return torch.logit(torch.cat(peaks, dim=1), eps=NEAREST)


def pool_score(anomaly_map: Tensor, pooling: str = "max", topk_fraction: float = 0.001) -> Tensor:
    """Return one score per image from its anomaly map, within the range of the map's values.

    Args:
        anomaly_map: Maps (N, 1, H, W).
        pooling: ``max``, ``mean``, or ``topk`` for the mean of the largest values. The mean reacts to global
            differences such as lighting rather than to defects.
        topk_fraction: For ``topk``: the fraction of pixels that counts, in (0, 1]; at least one pixel.

    Returns:
        Scores (N, 1).

    Raises:
        ValueError: If the pooling is unknown or the fraction outside (0, 1].

    Example:
        >>> pool_score(torch.tensor([[[[0.1, 0.2], [0.3, 0.4]]]]), "topk", topk_fraction=0.5)
        tensor([[0.3500]])
    """
    if pooling not in POOLINGS:
        msg = f"Expected pooling to be one of {list(POOLINGS)}, got {pooling!r}."
        raise ValueError(msg)
    if not 0 < topk_fraction <= 1:
        msg = f"Expected topk_fraction in (0, 1], got {topk_fraction}."
        raise ValueError(msg)
    values = anomaly_map.flatten(1)
    if pooling == "max":
        return torch.amax(values, dim=1, keepdim=True)
    if pooling == "topk":
        values = values.topk(max(1, math.floor(topk_fraction * values.shape[1])), dim=1).values
    return values.mean(dim=1, keepdim=True)
