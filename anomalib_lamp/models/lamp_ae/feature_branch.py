"""The part of LampAE that looks at features: how badly they are repaired, and how far they are from normal ones."""

import torch
from torch import Tensor, nn

from .feature_repair import FeatureRepair, damage_features, feature_error
from .features import CHUNK_SIZE, ChannelScale, FrozenFeatures, Levels
from .place_gaussian import PlaceGaussian

FEATURE_ERRORS = ("repair", "distance")


class FeatureBranch(nn.Module):
    """Return errors of an image's frozen features: of their repair at stride 16, and their distance from normal.

    Features are standardised: mean 0 and standard deviation 1 for every channel over normal images and places. What the
    repair network sees and returns are deviations from the mean at the same place. :meth:`fit` has to come first.

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
        {'repair': (4, 4, 4), 'distance': (4, 8, 8)}
    """

    usual: Tensor

    def __init__(self, backbone: str, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.features = FrozenFeatures(backbone, image_size)
        channels, height, width = self.features.coarse_shape
        self.fine_scale = ChannelScale(self.features.fine_shape[0])
        self.coarse_scale = ChannelScale(channels)
        self.register_buffer("usual", torch.zeros(channels, height, width))
        self.repair = FeatureRepair(channels, (height, width)).to(memory_format=torch.channels_last)
        self.gaussian = PlaceGaussian()

    @torch.no_grad()
    def fit(self, features: Levels) -> None:
        """Take over what the features of normal images are like.

        Args:
            features: Features of N images, N at least 1; half precision is enough.
        """
        self.fine_scale.fit(features.fine)
        self.coarse_scale.fit(features.coarse)
        self.usual = self.coarse_scale(features.coarse.mean(dim=0, dtype=torch.float32))
        self.fit_distance(features)

    @torch.no_grad()
    def fit_distance(self, features: Levels) -> None:
        """Take over what distances are measured from, and leave what repair rests on as it is.

        Args:
            features: Features of N images, N at least 1; half precision is enough.
        """
        chunks = zip(*(maps.split(CHUNK_SIZE) for maps in features), strict=True)
        self.gaussian.fit(torch.cat([self.standardised(Levels(*chunk)).joined().half() for chunk in chunks]))

    def standardised(self, features: Levels) -> Levels:
        """Return features in float32, each channel standardised."""
        return Levels(self.fine_scale(features.fine), self.coarse_scale(features.coarse))

    def damaged(self, standardised: Tensor) -> Tensor:
        """Return what the repair network sees of standardised features at stride 16: deviations, damaged at random."""
        return damage_features(standardised) - self.usual

    def repair_error(self, repaired: Tensor, target: Tensor) -> Tensor:
        """Return the error of every location (N, h, w).

        Args:
            repaired: What the repair network returns (N, C, h, w).
            target: Standardised features at stride 16 that it should be.
        """
        return feature_error(repaired + self.usual, target)

    def errors(self, images: Tensor) -> dict[str, Tensor]:
        """Return all errors of images by name."""
        levels = self.standardised(self.features(images))
        repaired = self.repair(levels.coarse - self.usual)
        return {"repair": self.repair_error(repaired, levels.coarse), "distance": self.gaussian(levels.joined())}
