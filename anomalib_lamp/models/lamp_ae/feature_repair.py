"""The network that returns features as they would be without a defect, and how it is damaged and judged."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_lamp.corruption import blob, hairlines, uniform

from .features import averaged
from .networks import conv_block

WIDTH = 128
INITIAL_OUTPUT_SCALE = 0.3  # of the last layer's weights: the training begins near the usual features of a place
REGIONS = 3
AREAS = (0.004, 0.3)  # smallest and largest damaged region, as fractions of the image
MAX_NOISE = 0.5  # standard deviation of added noise, in standard deviations of a channel
SMOOTHED_SIDE = 5  # locations of a side over which a filling is averaged


def pointwise(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return convolution 1 x 1, batch norm, leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.LeakyReLU(0.2, True)
    )


class FeatureRepair(nn.Module):
    """Return clean features from damaged ones.

    A small network that halves features once and enlarges them again, without skip connections. A map of learned
    numbers is added before and after, so that it knows the place. Input and output are deviations from the usual
    features of a place.

    Args:
        channels: Channels of the features.
        size: Height and width of the features, at least 4.

    Shape:
        Deviations (N, C, h, w) to the same.

    Example:
        >>> FeatureRepair(112, (16, 16)).eval()(torch.randn(2, 112, 16, 16)).shape
        torch.Size([2, 112, 16, 16])
    """

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(WIDTH, *size))
        self.enter = pointwise(channels, WIDTH)
        self.down = nn.Sequential(conv_block(WIDTH, WIDTH), conv_block(WIDTH, WIDTH, stride=2))
        self.middle = nn.Sequential(conv_block(WIDTH, WIDTH), conv_block(WIDTH, WIDTH, dilation=2))
        self.up = conv_block(WIDTH, WIDTH)
        self.leave = pointwise(WIDTH, WIDTH)
        self.head = nn.Conv2d(WIDTH, channels, 1)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.head.weight.data.mul_(INITIAL_OUTPUT_SCALE)

    def forward(self, deviations: Tensor) -> Tensor:
        """Return the repaired deviations."""
        x = self.enter(deviations.contiguous(memory_format=torch.channels_last)) + self.place
        x = self.middle(self.down(x))
        x = F.interpolate(x, size=deviations.shape[-2:], mode="nearest")
        return self.head(self.leave(self.up(x) + self.place))


def feature_error(repaired: Tensor, target: Tensor) -> Tensor:
    r"""Return the error :math:`(1 - \cos) / 2` of features (N, C, h, w) at every location, (N, h, w) in [0, 1].

    Example:
        >>> features = torch.randn(1, 6, 4, 4)
        >>> round(feature_error(features, -features).mean().item(), 4)
        1.0
    """
    return ((1 - F.cosine_similarity(repaired, target, dim=1)) / 2).clamp(0, 1)


def damage_features(features: Tensor) -> Tensor:
    """Return standardised features damaged in random regions, and with noise.

    Several times a region of random shape is drawn in every image and blended with other features: from another place
    of the image or of another image, scaled and shifted, or smoothed. What a defect does to features is not known;
    these kinds are as varied as they are cheap.

    Args:
        features: Features (N, C, h, w) with mean 0 and standard deviation 1 in every channel.

    Example:
        >>> damage_features(torch.randn(2, 6, 16, 16)).shape
        torch.Size([2, 6, 16, 16])
    """
    damaged = features
    for _ in range(REGIONS):
        filling = FILLINGS[int(torch.randint(len(FILLINGS), ()))](features)
        mask = hairlines(features) if torch.rand(()) < 0.2 else blob(features, *AREAS)
        opacity = uniform(features, 0.25, 1.0) * (uniform(features, 0, 1) < 2 / 3)
        damaged = torch.lerp(damaged, filling, opacity * mask)
    return damaged + uniform(features, 0, MAX_NOISE) * torch.randn_like(features)


def _elsewhere(features: Tensor) -> Tensor:
    """Return the features of another place of each image."""
    shift = [math.floor(side * (0.125 + 0.75 * float(torch.rand(())))) for side in features.shape[-2:]]
    return torch.roll(features, shift, dims=(2, 3))


def _other_image(features: Tensor) -> Tensor:
    """Return the features of another place of another image."""
    return _elsewhere(features.roll(1, dims=0))


def _scaled(features: Tensor) -> Tensor:
    """Return the features scaled and shifted by numbers of each image and channel."""
    return features * uniform(features, -0.5, 2.0) + 0.7 * torch.randn_like(features[:, :, :1, :1])


def _smoothed(features: Tensor) -> Tensor:
    """Return the features averaged over a neighbourhood of about 80 pixels."""
    return averaged(features, SMOOTHED_SIDE)


FILLINGS = (_elsewhere, _other_image, _scaled, _smoothed)
