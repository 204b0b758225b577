"""A normal distribution of features for every place of a part, in few numbers."""

import torch
from anomalib.models.components import DynamicBufferMixin
from sklearn.covariance import ledoit_wolf
from torch import Tensor, nn

MAX_SAMPLES = 20000  # feature vectors that the shared covariance is estimated from
MAX_IMAGES = 256  # images that the directions of each place are estimated from
PLACES_AT_ONCE = 128
MIN_EIGENVALUE = 1e-6  # of the shared covariance, relative to its mean


class PlaceGaussian(DynamicBufferMixin, nn.Module):
    r"""Return how far features are from those of normal images at the same place.

    Each place has its mean :math:`\mu`. One covariance, shared by all places, whitens the deviations from it:
    :math:`z = W (f - \mu)`. What is special about a place is kept in few directions: the ``rank`` eigenvectors
    :math:`v_k` of the covariance of its own :math:`z` with the largest eigenvalues :math:`\lambda_k`, along which
    normal images vary more there than elsewhere, for example where an edge lies. With them the squared distance is
    :math:`\lVert z \rVert^2 - \sum_k (1 - 1 / \max(\lambda_k, 1)) (v_k \cdot z)^2`.

    A covariance for every place, as PaDiM has, takes 30 million numbers for 32 x 32 places and 176 channels, and more
    images than there are channels. This takes 1.7 million.

    The distance :math:`d`, divided by the root of the number of channels, becomes :math:`d / (d + 1)`: in [0, 1), 0.5
    for the usual deviation of normal images.

    Args:
        rank: Number of directions of each place; 0 for the shared covariance alone.

    Shape:
        Features (N, C, h, w) to distances (N, h, w) in [0, 1); before :meth:`fit`, all are 0.

    Example:
        >>> normal = torch.randn(40, 6, 4, 4)
        >>> gaussian = PlaceGaussian(rank=2)
        >>> gaussian.fit(normal)
        >>> bool((gaussian(normal + 5) > gaussian(normal)).all())
        True
    """

    mean: Tensor
    whitening: Tensor
    directions: Tensor
    shrinkage: Tensor

    def __init__(self, rank: int = 8) -> None:
        super().__init__()
        self.rank = rank
        self.register_buffer("mean", torch.zeros(0, 0, 0))
        self.register_buffer("whitening", torch.zeros(0, 0))
        self.register_buffer("directions", torch.zeros(0, 0, 0))
        self.register_buffer("shrinkage", torch.zeros(0, 0))

    def forward(self, features: Tensor) -> Tensor:
        """Return the distance of ``features`` from normal ones."""
        if not len(self.whitening):
            return features.new_zeros(len(features), *features.shape[-2:])
        if features.shape[1:] != self.mean.shape:
            msg = (
                f"Expected features of shape {tuple(self.mean.shape)}, as in training, got {tuple(features.shape[1:])}."
                " Resize images to the size that the model was trained with."
            )
            raise ValueError(msg)
        z = self._whitened(features)
        along = torch.einsum("prc,ncp->npr", self.directions, z)
        squared = (z**2).sum(dim=1) - (self.shrinkage * along**2).sum(dim=2)
        distance = (squared.clamp(min=0) / z.shape[1]).sqrt().unflatten(1, features.shape[-2:])
        return distance / (distance + 1)

    def _whitened(self, features: Tensor) -> Tensor:
        """Return the whitened deviations (N, C, places)."""
        return torch.einsum("oc,ncp->nop", self.whitening, (features - self.mean).flatten(2))

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        """Estimate the distribution from the features of normal images.

        Args:
            features: Features (N, C, h, w) of normal images, N at least 1; half precision is enough.
        """
        self.mean = features.mean(dim=0, dtype=torch.float32)
        self.whitening = whitening_of(self._sampled_deviations(features))
        z = self._whitened(features[:MAX_IMAGES].float())
        rank = min(self.rank, len(z), z.shape[1])
        parts = [_principal_directions(part, rank) for part in z.permute(2, 1, 0).split(PLACES_AT_ONCE)]
        self.directions = torch.cat([directions for directions, _ in parts])
        eigenvalues = torch.cat([eigenvalues for _, eigenvalues in parts])
        self.shrinkage = 1 - 1 / eigenvalues.clamp(min=1)

    def _sampled_deviations(self, features: Tensor) -> Tensor:
        """Return deviations from the mean of their place (M, C), evenly taken from all images and places."""
        count, places = len(features), self.mean[0].numel()
        step = max(1, count * places // MAX_SAMPLES)
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randperm(count * places, generator=generator)[: count * places // step].to(features.device)
        image, place = chosen // places, chosen % places
        return features.flatten(2)[image, :, place].float() - self.mean.flatten(1).T[place]


def whitening_of(deviations: Tensor) -> Tensor:
    """Return the symmetric whitening (C, C) of samples (M, C) by their Ledoit-Wolf covariance.

    Channels without variance are left as small as they are.
    """
    covariance, _ = ledoit_wolf(deviations.double().cpu().numpy(), assume_centered=True)
    eigenvalues, vectors = torch.linalg.eigh(torch.from_numpy(covariance))
    floor = MIN_EIGENVALUE * eigenvalues.mean().clamp(min=MIN_EIGENVALUE)
    whitening = (vectors * eigenvalues.clamp(min=float(floor)).rsqrt()) @ vectors.T
    return whitening.float().to(deviations.device)


def _principal_directions(z: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the first eigenvectors (P, rank, C) and eigenvalues (P, rank) of the second moments of z (P, C, N)."""
    vectors, singular_values, _ = torch.linalg.svd(z, full_matrices=False)
    return vectors[..., :rank].mT.contiguous(), singular_values[..., :rank] ** 2 / max(1, z.shape[-1] - 1)
