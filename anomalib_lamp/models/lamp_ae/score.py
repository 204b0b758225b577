"""From reconstruction errors to the anomaly map that is shown and to the image score."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from .anomaly_map import MAP_METRIC, AnomalyMapGenerator, into_unit_interval
from .normal_errors import border_weights

POOLINGS = ("max", "mean", "topk")
SHARP_MAPS = {"ssim": 1.0}  # the smoothing, in pixels, of each one's map
MIN_IMAGES_FOR_PEAKS = 8  # fewer normal images cannot tell how far peaks spread
MIN_PEAK_SPREAD = 0.01  # of the logarithm of the odds of normal peaks
ODDS_MARGIN = 1e-7  # peaks nearer to 0 or 1 count as being that near


class MapAndScore(nn.Module):
    r"""Return the anomaly map of an image's errors, and as its score how far the largest exceed those of normal images.

    The score is made from the peak of the anomaly map and from the peaks of further maps, each smoothed in its own way,
    for defects are found at different scales: the smallest ones where structure (SSIM) is hardly smoothed, larger ones
    and those of textures where more is taken together. After :meth:`calibrate` with at least 8 images, the logarithm of
    the odds of each peak is standardised by those of normal images. The score is their mean :math:`z`, as
    :math:`\tfrac12 (1 + z / (|z| + 4))`: once calibrated, 0.5 is what normal images have on average.

    Args:
        map_metric: Error that makes the anomaly map, as :class:`~.anomaly_map.AnomalyMapGenerator` takes it.
        smoothing: Standard deviation of the anomaly map's smoothing in pixels; 0 for none.
        sharp_maps: Errors of the further maps with the smoothing of each in pixels; ``None`` takes ``{"ssim": 1.0}``,
            ``{}`` scores by the anomaly map alone.
        calibration: ``none`` or ``location``, which needs :meth:`calibrate`; it is part of the state dict.
        pooling: How the peak is taken from a map: ``max``, ``topk`` (mean of the largest values) or ``mean``.
        topk_fraction: For ``topk``: the fraction of pixels that counts, in (0, 1].

    Attributes:
        metrics: The names of the metrics whose errors are needed, each once.

    Shape:
        Errors (N, H, W) in [0, 1] by metric to the map (N, 1, H, W) in [0, 1] and scores (N, 1) in (0, 1).

    Raises:
        ValueError: If an argument is unknown or out of range.

    Example:
        >>> map_and_score = MapAndScore("l2", sharp_maps={"l1": 1.0})
        >>> anomaly_map, scores = map_and_score({"l1": torch.rand(2, 32, 32), "l2": torch.rand(2, 32, 32)})
        >>> anomaly_map.shape, scores.shape
        (torch.Size([2, 1, 32, 32]), torch.Size([2, 1]))
    """

    usual_peak: Tensor
    peak_spread: Tensor

    def __init__(
        self,
        map_metric: str = MAP_METRIC,
        smoothing: float = 2.5,
        sharp_maps: Mapping[str, float] | None = None,
        calibration: str = "none",
        pooling: str = "max",
        topk_fraction: float = 0.001,
    ) -> None:
        super().__init__()
        pool_score(torch.zeros(1, 1, 1, 1), pooling, topk_fraction)  # raises on a bad argument now, not after training
        sharp_maps = SHARP_MAPS if sharp_maps is None else sharp_maps
        self.shown = AnomalyMapGenerator(map_metric, smoothing, calibration)
        self.sharp = nn.ModuleList(
            AnomalyMapGenerator(metric, sigma, calibration) for metric, sigma in sharp_maps.items()
        )
        self.metrics = tuple(dict.fromkeys(metric for generator in self.generators for metric in generator.metrics))
        self.pooling = pooling
        self.topk_fraction = topk_fraction
        self.register_buffer("usual_peak", torch.zeros(1 + len(sharp_maps)))
        self.register_buffer("peak_spread", torch.ones(1 + len(sharp_maps)))

    @property
    def generators(self) -> Iterator[AnomalyMapGenerator]:
        """The generators of all maps, that of the anomaly map first."""
        yield self.shown
        yield from self.sharp  # type: ignore[misc]  # a list of modules

    @property
    def calibration(self) -> str:
        """The calibration of all maps."""
        return self.shown.calibration

    @calibration.setter
    def calibration(self, calibration: str) -> None:
        for generator in self.generators:
            generator.calibration = calibration

    def get_extra_state(self) -> dict[str, str]:
        """Return the calibration, for the state dict."""
        return {"calibration": self.calibration}

    def set_extra_state(self, state: dict[str, str]) -> None:
        """Take over the calibration."""
        self.calibration = state["calibration"]

    def calibrate(self, errors: Mapping[str, Tensor]) -> None:
        """Keep what the errors and peaks of normal images are like, at least 2 of them."""
        for generator in self.generators:
            generator.calibrate(errors)
        peaks = self._peaks(self._maps(errors))
        if len(peaks) < MIN_IMAGES_FOR_PEAKS:
            self.usual_peak, self.peak_spread = torch.zeros_like(peaks[0]), torch.ones_like(peaks[0])
        else:
            spread, self.usual_peak = torch.std_mean(peaks, dim=0)
            self.peak_spread = spread.clamp(min=MIN_PEAK_SPREAD)

    def forward(self, errors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the anomaly maps and the scores of images with these errors."""
        maps = self._maps(errors)
        z = (self._peaks(maps) - self.usual_peak) / self.peak_spread
        return maps[0], into_unit_interval(z.mean(dim=1, keepdim=True))

    def _maps(self, errors: Mapping[str, Tensor]) -> list[Tensor]:
        return [generator.map_of(errors) for generator in self.generators]

    def _peaks(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the logarithm of the odds of every map's peak, (N, maps)."""
        peaks = [
            pool_score(weigh_border(each, generator.normal_level), self.pooling, self.topk_fraction)
            for generator, each in zip(self.generators, maps, strict=True)
        ]
        return torch.logit(torch.cat(peaks, dim=1), eps=ODDS_MARGIN)


def weigh_border(anomaly_map: Tensor, normal_level: Tensor) -> Tensor:
    """Return a map (N, 1, H, W) in which what exceeds the normal level counts less towards the border.

    There the network sees only one side of what it repairs, and even normal errors are large.
    """
    weights = border_weights(anomaly_map.shape[-2], anomaly_map.shape[-1], anomaly_map.device)
    return normal_level + weights * (anomaly_map - normal_level)


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
