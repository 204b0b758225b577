"""The part of LampAE that looks at features: how badly they are repaired, and how far they are from normal ones."""

import torch
from torch import Tensor, nn

from .feature_repair import FeatureRepair, damage_features, feature_errors
from .features import FrozenFeatures, Levels
from .place_gaussian import PlaceGaussian

FEATURE_ERRORS = {  # what each of them is found by
    "stride4": "repair",
    "stride8": "repair",
    "stride16": "repair",
    "distance": "distance",
}
SMALLEST_DEVIATION = 1e-3  # of a channel
CHUNK_SIZE = 64


class FeatureBranch(nn.Module):
    """Return errors of an image's frozen features: of their repair at three strides, and their distance from normal.

    Features are standardised: mean 0 and standard deviation 1 for every channel over normal images and places. What the
    repair network sees and returns are their deviations from the mean at the same place. :meth:`fit` has to come first.

    Args:
        backbone: Name of a convolutional timm network with levels at strides 4, 8 and 16.
        image_size: Height and width of the images in pixels.

    Shape:
        Images (N, 3, H, W) in [0, 1] to errors (N, h, w) in [0, 1] by name.

    Example:
        >>> branch = FeatureBranch("tf_efficientnet_lite0", (64, 64)).eval()
        >>> images = torch.rand(4, 3, 64, 64)
        >>> branch.fit(branch.features(images))
        >>> {name: tuple(error.shape) for name, error in branch.errors(images).items()}
        {'stride4': (4, 8, 8), 'stride8': (4, 8, 8), 'stride16': (4, 4, 4), 'distance': (4, 8, 8)}
    """

    channel_mean: Tensor
    channel_deviation: Tensor
    usual: Tensor

    def __init__(self, backbone: str, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.features = FrozenFeatures(backbone, image_size)
        self.layout = self.features.layout
        self.repair = FeatureRepair(self.layout).to(memory_format=torch.channels_last)
        self.gaussian = PlaceGaussian()
        length = self.layout.length
        self.register_buffer("channel_mean", torch.zeros(length))
        self.register_buffer("channel_deviation", torch.ones(length))
        self.register_buffer("usual", torch.zeros(length))

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        """Take over what the features of normal images are like.

        Args:
            features: Packed features (N, L), N at least 1; half precision is enough.
        """
        chunks = features.split(CHUNK_SIZE)
        place_mean = sum(chunk.float().sum(dim=0, keepdim=True) for chunk in chunks) / len(features)
        self.channel_mean = self._over_places(place_mean)
        squares = sum((chunk.float() - self.channel_mean).square().sum(dim=0, keepdim=True) for chunk in chunks)
        variance = self._over_places(squares / len(features))
        self.channel_deviation = variance.clamp(min=SMALLEST_DEVIATION**2).sqrt()
        self.usual = self.standardised(place_mean)[0]
        self.gaussian.fit(torch.cat([self._joined(self.standardised(chunk.float())).half() for chunk in chunks]))

    def _over_places(self, packed: Tensor) -> Tensor:
        """Return the mean of each channel of one image (1, L) over all places, in the place of its values, (L)."""
        levels = self._maps(packed)
        return Levels(*(maps.mean(dim=(2, 3), keepdim=True).expand_as(maps) for maps in levels)).packed()[0]

    def standardised(self, features: Tensor) -> Tensor:
        """Return packed features (N, L), each channel standardised."""
        return (features - self.channel_mean) / self.channel_deviation

    def damaged(self, standardised: Tensor) -> Tensor:
        """Return what the repair network sees of standardised, packed features: deviations, damaged at random."""
        return damage_features(self._maps(standardised)).packed() - self.usual

    def repair_errors(self, repaired: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the error (N, h, w) of each stride.

        Args:
            repaired: What the repair network returns (N, L).
            target: Standardised, packed features that it should be.
        """
        return feature_errors(self._maps(repaired + self.usual), self._maps(target), self.layout.channels)

    def errors(self, images: Tensor) -> dict[str, Tensor]:
        """Return all errors of images by name."""
        target = self.standardised(self.features(images))
        repaired = self.repair(target - self.usual)
        return {**self.repair_errors(repaired, target), "distance": self.gaussian(self._joined(target))}

    def _maps(self, packed: Tensor) -> Levels:
        return self.layout.unpacked(packed)

    def _joined(self, packed: Tensor) -> Tensor:
        return self._maps(packed).joined()
