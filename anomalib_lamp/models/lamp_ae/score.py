"""From several kinds of evidence to the anomaly map that is shown and to the image score."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from .anomaly_map import AnomalyMapGenerator, into_unit_interval
from .feature_branch import FEATURE_ERRORS
from .normal_errors import border_weights

POOLINGS = ("max", "mean", "topk")
SOURCE_WEIGHTS = {"pixels": 2.0, "repair": 1.0, "distance": 2.0}
MIN_IMAGES_FOR_PEAKS = 4  # fewer normal images cannot tell how far peaks spread
MIN_PEAK_SPREAD = 0.01  # of the logarithm of the odds of normal peaks
ODDS_MARGIN = 1e-7  # errors nearer to 0 or 1 count as being that near

Evidence = Sequence[tuple[str, float]]


class MapAndScore(nn.Module):
    r"""Return one anomaly map made from several kinds of evidence, and its peak as the score.

    Every kind of evidence is an error of its own with a smoothing of its own, for defects differ: small ones show where
    structure (SSIM) is hardly smoothed, larger ones where more is taken together, others in features only. After
    :meth:`calibrate` with at least 4 images, the logarithm of the odds of each error is standardised by the peaks that
    it has on normal images: :math:`z = 0` is what a normal image has at most, on average. The map is the weighted mean
    of all :math:`z`, as :math:`\tfrac12 (1 + z / (|z| + 4))`; the score is its peak.

    Args:
        evidence: Errors, each as :class:`~.anomaly_map.AnomalyMapGenerator` takes it, with the standard deviation of
            its smoothing in locations of its map; 0 for none. An error may stand there twice.
        calibration: ``none`` or ``location``, which needs :meth:`calibrate`; it is part of the state dict.
        pooling: How the peak is taken from the map: ``max``, ``topk`` (mean of the largest values) or ``mean``.
        topk_fraction: For ``topk``: the fraction of pixels that counts, in (0, 1].

    Attributes:
        metrics: The names of the errors that are needed, each once.
        prior: Weight of each kind of evidence before anything is known of it: pixels and distance count twice as much
            as repaired features, and the kinds of each share its weight. They sum to 1.
        weights: Weight of each kind of evidence, which sum to 1; the prior before they are chosen.

    Shape:
        Errors (N, h, w) in [0, 1] by name, their sizes may differ, to a map (N, 1, h, w) of the largest size and scores
        (N, 1), both in (0, 1).

    Raises:
        ValueError: If an argument is unknown or out of range.

    Example:
        >>> map_and_score = MapAndScore([("l2", 2.5), ("l1", 1.0)])
        >>> anomaly_map, scores = map_and_score({"l1": torch.rand(2, 32, 32), "l2": torch.rand(2, 32, 32)})
        >>> anomaly_map.shape, scores.shape
        (torch.Size([2, 1, 32, 32]), torch.Size([2, 1]))
    """

    usual_peak: Tensor
    peak_spread: Tensor
    prior: Tensor
    weights: Tensor

    def __init__(
        self, evidence: Evidence, calibration: str = "none", pooling: str = "max", topk_fraction: float = 0.001
    ) -> None:
        super().__init__()
        pool_score(torch.zeros(1, 1, 1, 1), pooling, topk_fraction)  # raises on a bad argument now, not after training
        self.generators = nn.ModuleList(AnomalyMapGenerator(metric, sigma, calibration) for metric, sigma in evidence)
        self.metrics = tuple(dict.fromkeys(metric for generator in self.generators for metric in generator.metrics))  # type: ignore[union-attr]
        self.pooling = pooling
        self.topk_fraction = topk_fraction
        sources = [metric if metric in FEATURE_ERRORS else "pixels" for metric, _ in evidence]
        prior = torch.tensor([SOURCE_WEIGHTS[source] / sources.count(source) for source in sources])
        prior = prior / prior.sum()
        self.register_buffer("usual_peak", torch.zeros(len(prior)))
        self.register_buffer("peak_spread", torch.ones(len(prior)))
        self.register_buffer("prior", prior, persistent=False)
        self.register_buffer("weights", prior.clone())

    @property
    def names(self) -> list[str]:
        """The errors of all kinds of evidence, in order."""
        return [str(generator.metric) for generator in self.generators]

    @property
    def calibration(self) -> str:
        """The calibration of all maps."""
        return str(self.generators[0].calibration)

    @calibration.setter
    def calibration(self, calibration: str) -> None:
        for generator in self.generators:
            generator.calibration = calibration  # type: ignore[assignment]

    def get_extra_state(self) -> dict[str, str]:
        """Return the calibration, for the state dict."""
        return {"calibration": self.calibration}

    def set_extra_state(self, state: dict[str, str]) -> None:
        """Take over the calibration."""
        self.calibration = state["calibration"]

    def calibrate(self, errors: Mapping[str, Tensor]) -> None:
        """Keep what the errors and peaks of normal images are like, at least 2 of them."""
        for generator in self.generators:
            generator.calibrate(errors)  # type: ignore[operator]
        peaks = torch.stack([odds.amax((1, 2, 3)) for odds in self._log_odds(errors)], dim=1)
        if len(peaks) < MIN_IMAGES_FOR_PEAKS:
            self.usual_peak, self.peak_spread = torch.zeros_like(peaks[0]), torch.ones_like(peaks[0])
        else:
            spread, self.usual_peak = torch.std_mean(peaks, dim=0)
            self.peak_spread = spread.clamp(min=MIN_PEAK_SPREAD)

    def standardised(self, errors: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the standardised map (N, 1, h, w) of every kind of evidence."""
        triples = zip(self._log_odds(errors), self.usual_peak, self.peak_spread, strict=True)
        return [(odds - usual) / spread for odds, usual, spread in triples]

    def forward(self, errors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the anomaly maps and the scores of images with these errors."""
        return self.combine(self.standardised(errors))

    def combine(self, standardised: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the anomaly maps and the scores, given the standardised maps."""
        height, width = (max(maps.shape[axis] for maps in standardised) for axis in (-2, -1))
        enlarged = [F.interpolate(z, size=(height, width), mode="bilinear", align_corners=False) for z in standardised]
        anomaly_map = into_unit_interval(
            (torch.cat(enlarged, dim=1) * self.weights[:, None, None]).sum(1, keepdim=True)
        )
        return anomaly_map, pool_score(anomaly_map, self.pooling, self.topk_fraction)

    def _log_odds(self, errors: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the logarithm of the odds of every map's errors."""
        maps = [(generator, generator.map_of(errors)) for generator in self.generators]  # type: ignore[operator]
        return [torch.logit(weigh_border(each, generator.normal_level), eps=ODDS_MARGIN) for generator, each in maps]  # type: ignore[arg-type]


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
