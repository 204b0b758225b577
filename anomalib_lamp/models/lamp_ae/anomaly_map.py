"""From a reconstruction to an anomaly map, and from a map to a score."""

import math

import torch
from torch import Tensor, nn

from anomalib_lamp.functional import ERRORS, gaussian_blur, reconstruction_error

POOLINGS = ("max", "mean", "topk")


class AnomalyMapGenerator(nn.Module):
    """Return the reconstruction error per pixel, averaged over channels and smoothed.

    Args:
        metric: Element-wise error: ``l1``, ``l2``, ``ssim`` or ``msgms``.
        sigma: Standard deviation of the Gaussian smoothing in pixels; 0 for none.

    Shape:
        Two tensors (N, C, H, W) in [0, 1] to a map (N, 1, H, W) in [0, 1]. The map is an average of errors in [0, 1]:
        it is not squashed, so distinct errors stay distinct.

    Raises:
        ValueError: If the metric is unknown or sigma negative.

    Example:
        >>> generator = AnomalyMapGenerator("l1", sigma=0)
        >>> generator(torch.ones(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)).mean()
        tensor(1.)
    """

    def __init__(self, metric: str = "msgms", sigma: float = 4.0) -> None:
        super().__init__()
        if metric not in ERRORS:
            msg = f"Expected map_metric to be one of {sorted(ERRORS)}, got {metric!r}."
            raise ValueError(msg)
        if sigma < 0:
            msg = f"Expected smoothing to be 0 or a standard deviation in pixels, got {sigma}."
            raise ValueError(msg)
        self.metric = metric
        self.sigma = sigma

    def forward(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Return the anomaly map of ``reconstruction`` against ``target``."""
        error = reconstruction_error(reconstruction, target, self.metric).mean(dim=1, keepdim=True)
        return gaussian_blur(error, self.sigma).clamp(0, 1) if self.sigma else error  # 1 + 1e-7 is not in [0, 1]


def pool_score(anomaly_map: Tensor, pooling: str = "max", topk_fraction: float = 0.01) -> Tensor:
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
