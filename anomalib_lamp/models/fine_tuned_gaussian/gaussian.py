"""A multivariate normal distribution with a Ledoit-Wolf covariance, and what is kept of feature maps to fit it."""

import math

import torch
from sklearn.covariance import ledoit_wolf, shrunk_covariance
from torch import Tensor, nn

from anomalib_lamp.functional import mahalanobis

MIN_SHRINKAGE = 1e-6
FLOAT32_RESOLUTION = 1e-6


class Gaussian(nn.Module):
    """Return Mahalanobis distances to a fitted distribution; before fitting, to the standard normal one.

    The covariance is scikit-learn's Ledoit-Wolf estimate, whose shrinkage makes it invertible also for fewer samples
    than channels and for constant channels. Where the estimate does not shrink (two samples, say), it is shrunk by
    1e-6. Without any variance (one sample, or all equal to float32's precision) it is the identity: distances are
    Euclidean.

    Everything is kept in buffers of fixed shape. The covariance is kept as whitening ``W`` with ``W^T W`` its inverse:
    the distance is then the length of a vector, without cancellation, and never the root of a negative number.

    Args:
        *shape: Shape of the mean: channels, and, for a mean of its own at every location, height and width. The
            covariance is shared by all locations.

    Shape:
        Samples (N, channels), or maps (N, channels, height, width), to distances (N) or (N, height, width).

    Example:
        >>> Gaussian(3)(torch.tensor([[2.0, 1.0, 2.0]]))
        tensor([3.])
    """

    mean: Tensor
    whitening: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("whitening", torch.eye(shape[0]))
        self.typical_distance = math.sqrt(shape[0])  # of samples from the distribution, root mean square

    def forward(self, samples: Tensor) -> Tensor:
        """Return the distance of each sample, or of each location of maps."""
        return mahalanobis(samples.movedim(1, -1), self.mean.movedim(0, -1), self.whitening)

    def fit(self, mean: Tensor, deviations: Tensor) -> None:
        """Take over the mean, and estimate the covariance.

        Args:
            mean: Mean, of the shape given to the constructor.
            deviations: Samples less their mean, (M, channels).

        Raises:
            ValueError: If a value is not finite.
        """
        mean, deviations = (values.cpu().double() for values in (mean, deviations))
        if not (deviations.isfinite().all() and mean.isfinite().all()):
            msg = (
                "Expected finite features, got NaN or infinity. "
                "Check the backbone's weights, and that images are in [0, 1]."
            )
            raise ValueError(msg)
        if deviations.abs().max() <= FLOAT32_RESOLUTION * mean.abs().max():
            deviations = torch.zeros_like(deviations)
        whitening = torch.linalg.inv(torch.linalg.cholesky(covariance(deviations)))
        self.mean.copy_(mean)
        self.whitening.copy_(whitening)


def covariance(deviations: Tensor) -> Tensor:
    """Return the positive definite covariance (D, D) of float64 samples (M, D): see :class:`Gaussian`."""
    channels = deviations.shape[1]
    if len(deviations) < 2 or not deviations.any():
        return torch.eye(channels, dtype=deviations.dtype)
    estimate, shrinkage = ledoit_wolf(deviations.numpy())
    if shrinkage < MIN_SHRINKAGE:
        estimate = shrunk_covariance(estimate, MIN_SHRINKAGE)
    return torch.from_numpy(estimate)


class LevelSamples:
    """What is kept of one level's feature maps: every image's spatial mean, the mean map, and sampled locations.

    Args:
        locations: How many locations are sampled in every image, at random but the same in every run.
    """

    def __init__(self, locations: int = 16) -> None:
        self.locations = locations
        self.generator = torch.Generator().manual_seed(0)
        self.spatial_means: list[Tensor] = []
        self.map_sum = torch.zeros(())
        self.sampled: list[Tensor] = []
        self.places: list[Tensor] = []

    def add(self, maps: Tensor) -> None:
        """Remember what is needed of maps (N, C, H, W)."""
        count, channels, height, width = maps.shape
        places = torch.randint(height * width, (count, self.locations), generator=self.generator)
        index = places[:, None].expand(-1, channels, -1).to(maps.device)
        self.spatial_means.append(spatial_mean(maps).cpu())
        self.map_sum = self.map_sum + maps.sum(dim=0).cpu().double()
        self.sampled.append(maps.flatten(2).gather(2, index).cpu())
        self.places.append(places)

    def image_statistics(self) -> tuple[Tensor, Tensor]:
        """Return the mean (C) of the images' spatial means, and their deviations from it (N, C)."""
        samples = torch.cat(self.spatial_means).double()
        mean = samples.mean(dim=0)
        return mean, samples - mean

    def location_statistics(self) -> tuple[Tensor, Tensor]:
        """Return the mean map (C, H, W), and the sampled locations' deviations from it (N * locations, C)."""
        places = torch.cat(self.places)
        mean = self.map_sum / len(places)
        deviations = torch.cat(self.sampled).double() - mean.flatten(1)[:, places].movedim(0, 1)
        return mean, deviations.movedim(1, 2).flatten(0, 1)


def spatial_mean(maps: Tensor) -> Tensor:
    """Return the mean (N, C) of maps (N, C, H, W) over all locations."""
    return maps.mean(dim=(2, 3))
