"""Features of images from a frozen pre-trained network, at the strides where defects of parts show."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_lamp.backbone import Backbone, check_known

STRIDES = (4, 8, 16)
SMALLEST_SIDE = 64  # of images in pixels: repair halves features at stride 16 once more
SMALLEST_DEVIATION = 1e-3  # of a channel
CHUNK_SIZE = 64  # images whose features are made float32 at once


class Levels(NamedTuple):
    """Features of the same images at two resolutions.

    Attributes:
        fine: Channels of strides 4 and 8, one vector for every 8 x 8 pixels, (N, C, h, w).
        coarse: Channels of stride 16, one vector for every 16 x 16 pixels.
    """

    fine: Tensor
    coarse: Tensor

    def joined(self) -> Tensor:
        """Return all channels at the finer resolution, (N, C, h, w)."""
        coarse = F.interpolate(self.coarse, size=self.fine.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat([self.fine, coarse], dim=1)

    @classmethod
    def of_all(cls, parts: "Iterable[Levels]") -> "Levels":
        """Return the features of all images, given those of some at a time."""
        return cls(*(torch.cat(maps) for maps in zip(*parts, strict=True)))


class FrozenFeatures(nn.Module):
    """Return the features of images from the levels of a network at strides 4, 8 and 16, which is never trained.

    The two finer levels are averaged over 3 x 3 of their locations, which makes small shifts of a part matter less.

    Args:
        name: Name of a convolutional timm network that has levels of these strides.
        image_size: Height and width of the images in pixels, at least 64.

    Attributes:
        fine_shape: Channels, height and width of the features at stride 8, those of stride 4 among them.
        coarse_shape: The same at stride 16.

    Shape:
        Images (N, 3, H, W) in [0, 1] to features at two resolutions.

    Raises:
        ValueError: If the network is unknown or has no level at one of the strides, the images are too small; when
            called, if they are of another size.

    Example:
        >>> features = FrozenFeatures("tf_efficientnet_lite0", (64, 64))
        >>> [maps.shape for maps in features(torch.rand(1, 3, 64, 64))]
        [torch.Size([1, 64, 8, 8]), torch.Size([1, 112, 4, 4])]
    """

    def __init__(self, name: str, image_size: tuple[int, int]) -> None:
        super().__init__()
        if min(image_size) < SMALLEST_SIDE:
            msg = (
                f"Expected images of at least {SMALLEST_SIDE} pixels a side for features, got {tuple(image_size)}. "
                "Raise image_size, or set targets to 'pixels'."
            )
            raise ValueError(msg)
        self.image_size = tuple(image_size)
        self.backbone = Backbone(name, levels_at(name, STRIDES)).requires_grad_(False)
        with torch.no_grad():
            fine, coarse = self(torch.zeros(1, 3, *image_size))
        self.fine_shape, self.coarse_shape = tuple(fine.shape[1:]), tuple(coarse.shape[1:])

    def forward(self, images: Tensor) -> Levels:
        """Return the features of ``images``."""
        if tuple(images.shape[-2:]) != self.image_size:
            msg = (
                f"Expected images of {self.image_size[0]} x {self.image_size[1]} pixels, for which features were set "
                f"up, got {tuple(images.shape[-2:])}. Resize them, or set image_size."
            )
            raise ValueError(msg)
        stride4, stride8, coarse = self.backbone(images)
        stride4 = F.adaptive_avg_pool2d(averaged(stride4, 3), stride8.shape[-2:])
        return Levels(torch.cat([stride4, averaged(stride8, 3)], dim=1), coarse)


class ChannelScale(nn.Module):
    """Standardise features: every channel has mean 0 and standard deviation 1 over normal images and places.

    Args:
        channels: Number of channels.

    Shape:
        Features (..., C, h, w) of any precision to the same in float32; before :meth:`fit`, with the same values.

    Example:
        >>> scale = ChannelScale(6)
        >>> scale.fit(5 + 3 * torch.randn(20, 6, 8, 8))
        >>> bool((scale.mean - 5).abs().max() < 1)
        True
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("deviation", torch.ones(channels, 1, 1))

    def fit(self, features: Tensor) -> None:
        """Take over the mean and the standard deviation of every channel of normal features (N, C, h, w)."""
        self.mean = features.mean(dim=(0, 2, 3), dtype=torch.float32)[:, None, None]
        squares = [(chunk.float() - self.mean).square().sum(dim=(0, 2, 3)) for chunk in features.split(CHUNK_SIZE)]
        variance = torch.stack(squares).sum(dim=0) / features[:, 0].numel()
        self.deviation = variance.sqrt().clamp(min=SMALLEST_DEVIATION)[:, None, None]

    def forward(self, features: Tensor) -> Tensor:
        """Return standardised features."""
        return (features.float() - self.mean) / self.deviation


def averaged(maps: Tensor, side: int) -> Tensor:
    """Return the mean over side x side locations, fewer at the border."""
    return F.avg_pool2d(maps, side, stride=1, padding=side // 2, count_include_pad=False)


def levels_at(name: str, strides: Sequence[int]) -> list[str]:
    """Return the names of a timm network's modules whose outputs have these strides.

    Raises:
        ValueError: If the network is unknown, or has no level at one of the strides.

    Example:
        >>> levels_at("resnet18", (4, 8, 16))
        ['layer1', 'layer2', 'layer3']
    """
    check_known(name)
    information = timm.create_model(name, pretrained=False, num_classes=0).feature_info
    modules = {level["reduction"]: level["module"] for level in information}  # type: ignore[union-attr]
    if not set(strides) <= modules.keys():
        msg = (
            f"Expected a backbone with levels at strides {', '.join(map(str, strides))}, got {name!r} with strides "
            f"{', '.join(map(str, sorted(modules)))}. Take a convolutional network such as tf_efficientnet_lite0."
        )
        raise ValueError(msg)
    return [modules[stride] for stride in strides]
