"""From a reconstruction to an anomaly map."""

from collections.abc import Mapping

import torch
from anomalib.models.components import DynamicBufferMixin
from torch import Tensor, nn

from anomalib_lamp.functional import ERRORS, errors_by_metric, gaussian_blur

from .feature_branch import FEATURE_ERRORS
from .normal_errors import image_level, level_exponent, location_statistics

MAP_METRIC = "ssim+msgms+chroma"  # structure, edges of all sizes, colour
CALIBRATIONS = ("none", "location")
SMALLEST_METRIC_MEAN = 1e-4  # on normal images, where metrics are weighted: grey images have no error in colour
NEIGHBOURHOOD_SMOOTHING = 2  # of the statistics of normal errors, relative to that of the map
HALFWAY_DEVIATIONS = 4.0  # deviations from normal at which a calibrated map is halfway between 0.5 and 1


class AnomalyMapGenerator(DynamicBufferMixin, nn.Module):
    r"""Return the smoothed reconstruction error per pixel, as it is or set against normal errors at the same place.

    The errors of the metrics are averaged over channels, then over metrics, and smoothed. After :meth:`calibrate`, the
    metrics are weighted by the inverse of their means on normal images, so that each counts the same. Where normal
    images with larger errors everywhere (a coarser weave, another light) also have larger peaks, the odds of the errors
    are divided by a power of the image's own level: see :func:`level_exponent`. Where the calibration is ``location``,
    the error :math:`E` becomes :math:`z = (E - \mu / 2) / (\sigma + 2 \bar\sigma)`, with mean and standard deviation of
    normal images at each location, :math:`\bar\sigma` the average of :math:`\sigma` over the map: halfway between the
    plain and the standardised error, which parts that move about would suffer from. The map is
    :math:`\tfrac12 (1 + z / (|z| + 4))`: in (0, 1), strictly growing with :math:`z`, without saturation.

    Args:
        metric: Error of pixels: ``l1``, ``l2``, ``ssim``, ``msgms``, ``chroma``, or several joined by ``+``; or one of
            features: ``repair``, ``distance``.
        sigma: Standard deviation of the Gaussian smoothing in pixels; 0 for none.
        calibration: ``none`` or ``location``, which needs :meth:`calibrate`.

    Shape:
        Two tensors (N, C, H, W) in [0, 1] to a map (N, 1, H, W) in [0, 1]; distinct errors stay distinct.

    Raises:
        ValueError: If the metric or the calibration is unknown or sigma negative; when called, if calibrated maps are
            asked for without normal errors of this size.

    Example:
        >>> generator = AnomalyMapGenerator("l1+ssim", calibration="location")
        >>> clean, noisy = torch.rand(8, 3, 32, 32), torch.rand(8, 3, 32, 32)
        >>> generator.calibrate(errors_by_metric(noisy, clean, ["l1", "ssim"]))
        >>> generator(noisy, clean).shape
        torch.Size([8, 1, 32, 32])
    """

    metric_weights: Tensor
    usual_level: Tensor
    level_exponent: Tensor
    location_mean: Tensor
    location_spread: Tensor
    normal_level: Tensor

    def __init__(self, metric: str = MAP_METRIC, sigma: float = 2.5, calibration: str = "none") -> None:
        super().__init__()
        metrics = metric.split("+")
        known = [*sorted(ERRORS), *FEATURE_ERRORS]
        if not set(metrics) <= set(known):
            msg = f"Expected map_metric to be one of {known}, or several joined by '+', got {metric!r}."
            raise ValueError(msg)
        if sigma < 0:
            msg = f"Expected smoothing to be 0 or a standard deviation in pixels, got {sigma}."
            raise ValueError(msg)
        if calibration not in CALIBRATIONS:
            msg = f"Expected calibration to be one of {list(CALIBRATIONS)}, got {calibration!r}."
            raise ValueError(msg)
        self.metric = metric
        self.sigma = sigma
        self.calibration = calibration
        self.register_buffer("metric_weights", torch.full((len(metrics),), 1 / len(metrics)))
        self.register_buffer("usual_level", torch.ones(()))
        self.register_buffer("level_exponent", torch.zeros(()))
        self.register_buffer("location_mean", torch.zeros(0, 0))
        self.register_buffer("location_spread", torch.zeros(0, 0))
        self.register_buffer("normal_level", torch.zeros(()))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that the map is made of."""
        return tuple(self.metric.split("+"))

    def calibrate(self, errors: Mapping[str, Tensor]) -> None:
        """Keep what normal errors are like: by metric, by image, at each location, and on the map.

        Args:
            errors: What :func:`errors_by_metric` gives for at least 2 normal images.
        """
        weights = torch.stack([1 / errors[metric].mean().clamp(min=SMALLEST_METRIC_MEAN) for metric in self.metrics])
        self.metric_weights = weights / weights.sum()
        error = self._smoothed(errors)
        self.usual_level = image_level(error).median()
        self.level_exponent = level_exponent(error)
        error = self._levelled(error)
        self.location_mean, self.location_spread = location_statistics(error, NEIGHBOURHOOD_SMOOTHING * self.sigma)
        self.normal_level = self._calibrated(error).median()

    def forward(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Return the anomaly map of ``reconstruction`` against ``target``."""
        return self.map_of(errors_by_metric(reconstruction, target, self.metrics))

    def map_of(self, errors: Mapping[str, Tensor]) -> Tensor:
        """Return the anomaly map (N, 1, H, W) made from what :func:`errors_by_metric` gives."""
        return self._calibrated(self._levelled(self._smoothed(errors)))

    def _calibrated(self, error: Tensor) -> Tensor:
        """Return the error set against normal errors at the same place, if that is the calibration."""
        if self.calibration == "none":
            return error
        if self.location_mean.shape != error.shape[-2:]:
            msg = (
                f"Expected normal errors of size {tuple(error.shape[-2:])} to set errors against, "
                f"got {tuple(self.location_mean.shape)}. Calibrate with images of this size first."
            )
            raise ValueError(msg)
        z = (error - self.location_mean / 2) / (self.location_spread + 2 * self.location_spread.mean())
        return into_unit_interval(z)

    def _smoothed(self, errors: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted mean of the metrics, smoothed, (N, 1, H, W)."""
        by_metric = torch.stack([errors[metric] for metric in self.metrics], dim=1)
        error = (by_metric * self.metric_weights[:, None, None]).sum(dim=1, keepdim=True)
        return gaussian_blur(error, self.sigma).clamp(0, 1) if self.sigma else error  # 1 + 1e-7 is not in [0, 1]

    def _levelled(self, error: Tensor) -> Tensor:
        """Return the error with its odds divided by a power of the image's level, relative to the usual level."""
        factor = (self.usual_level / image_level(error)) ** self.level_exponent
        return error * factor / (1 + error * (factor - 1))


def into_unit_interval(z: Tensor) -> Tensor:
    """Return numbers in (0, 1) that grow strictly with ``z``; 0 becomes 0.5, four becomes 0.75.

    Example:
        >>> into_unit_interval(torch.tensor([-4.0, 0.0, 4.0]))
        tensor([0.2500, 0.5000, 0.7500])
    """
    return 0.5 + 0.5 * z / (z.abs() + HALFWAY_DEVIATIONS)
