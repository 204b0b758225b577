"""Features of images from a frozen pre-trained network, at the strides where defects of parts show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_lamp.backbone import Backbone, check_known

STRIDES = (4, 8, 16)
SMALLEST_SIDE = 64  # of images in pixels: repair halves features at stride 16 once more


class Levels(NamedTuple):
    """Features of the same images at two resolutions.

    Attributes:
        fine: Channels of strides 4 and 8, one vector for every 8 x 8 pixels.
        coarse: Channels of stride 16, one vector for every 16 x 16 pixels.
    """

    fine: Tensor
    coarse: Tensor

    def joined(self) -> Tensor:
        """Return all channels at the finer resolution, (N, C, h, w)."""
        coarse = F.interpolate(self.coarse, size=self.fine.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat([self.fine, coarse], dim=1)

    def packed(self) -> Tensor:
        """Return all values of an image in one row, (N, L)."""
        return torch.cat([self.fine.flatten(1), self.coarse.flatten(1)], dim=1)


@dataclass(frozen=True)
class Layout:
    """How the features of an image lie in one row.

    Attributes:
        channels: Number of channels at strides 4, 8 and 16.
        size: Height and width of the finer features.
        coarse_size: Height and width of the coarser features.

    Example:
        >>> levels = Layout((2, 3, 4), (4, 4), (2, 2)).unpacked(torch.zeros(1, 96))
        >>> levels.fine.shape, levels.coarse.shape
        (torch.Size([1, 5, 4, 4]), torch.Size([1, 4, 2, 2]))
    """

    channels: tuple[int, int, int]
    size: tuple[int, int]
    coarse_size: tuple[int, int]

    @property
    def length(self) -> int:
        """Number of values in a row."""
        stride4, stride8, coarse = self.channels
        return (stride4 + stride8) * self.size[0] * self.size[1] + coarse * self.coarse_size[0] * self.coarse_size[1]

    def unpacked(self, packed: Tensor) -> Levels:
        """Return the maps of packed features (N, L)."""
        fine = self.channels[0] + self.channels[1]
        end = fine * self.size[0] * self.size[1]
        coarse = packed[:, end:].unflatten(1, (self.channels[2], *self.coarse_size))
        return Levels(packed[:, :end].unflatten(1, (fine, *self.size)), coarse)


class FrozenFeatures(nn.Module):
    """Return the features of images from the levels of a network at strides 4, 8 and 16, which is never trained.

    The two finer levels are averaged over 3 x 3 of their locations, which makes small shifts of a part matter less.

    Args:
        name: Name of a convolutional timm network that has levels of these strides.
        image_size: Height and width of the images in pixels, at least 64.

    Attributes:
        layout: How the features of an image lie in one row.

    Shape:
        Images (N, 3, H, W) in [0, 1] to one row of features for each, (N, L).

    Raises:
        ValueError: If the network is unknown or has no level at one of the strides, the images are too small; when
            called, if they are of another size.

    Example:
        >>> features = FrozenFeatures("tf_efficientnet_lite0", (64, 64))
        >>> levels = features.layout.unpacked(features(torch.rand(1, 3, 64, 64)))
        >>> levels.fine.shape, levels.coarse.shape
        (torch.Size([1, 64, 8, 8]), torch.Size([1, 112, 4, 4]))
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
            shapes = [tuple(maps.shape[1:]) for maps in self.backbone(torch.zeros(1, 3, *image_size))]
        channels = tuple(shape[0] for shape in shapes)
        self.layout = Layout(channels, shapes[1][1:], shapes[2][1:])

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of ``images``, packed."""
        if tuple(images.shape[-2:]) != self.image_size:
            msg = (
                f"Expected images of {self.image_size[0]} x {self.image_size[1]} pixels, for which features were set "
                f"up, got {tuple(images.shape[-2:])}. Resize them, or set image_size."
            )
            raise ValueError(msg)
        stride4, stride8, coarse = self.backbone(images)
        stride4 = F.adaptive_avg_pool2d(_averaged(stride4), self.layout.size)
        return Levels(torch.cat([stride4, _averaged(stride8)], dim=1), coarse).packed()


def _averaged(maps: Tensor) -> Tensor:
    return F.avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)


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
