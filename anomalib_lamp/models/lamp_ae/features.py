"""Features of images from a frozen pre-trained network, at the strides where defects of parts show."""

from collections.abc import Sequence

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_lamp.backbone import Backbone

STRIDES = (4, 8, 16)
FEATURE_STRIDE = 8  # pixels between two locations of the features


class FrozenFeatures(nn.Module):
    """Return one feature vector for every 8 x 8 pixels, from the levels of a network at strides 4, 8 and 16.

    Every level is averaged over 3 x 3 of its locations, which makes small shifts of a part matter less, and then
    brought to stride 8: the finer by averaging, the coarser by bilinear interpolation. The network is never trained.

    Args:
        name: Name of a convolutional timm network that has levels of these strides.

    Attributes:
        channels: Number of channels that each level contributes, from the finest to the coarsest.

    Shape:
        Images (N, 3, H, W) in [0, 1] to features (N, C, ceil(H / 8), ceil(W / 8)).

    Raises:
        ValueError: If the network is unknown or has no level at one of the strides.

    Example:
        >>> features = FrozenFeatures("tf_efficientnet_lite0")
        >>> features.channels, features(torch.rand(1, 3, 64, 64)).shape
        ([24, 40, 112], torch.Size([1, 176, 8, 8]))
    """

    def __init__(self, name: str = "tf_efficientnet_lite0") -> None:
        super().__init__()
        self.backbone = Backbone(name, levels_at(name, STRIDES)).requires_grad_(False)
        with torch.no_grad():
            self.channels = [maps.shape[1] for maps in self.backbone(torch.zeros(1, 3, 64, 64))]

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of ``images``."""
        height, width = (-(-side // FEATURE_STRIDE) for side in images.shape[-2:])
        levels = [F.avg_pool2d(maps, 3, 1, 1, count_include_pad=False) for maps in self.backbone(images)]
        return torch.cat([_resized(maps, (height, width)) for maps in levels], dim=1)


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps (N, C, h, w) at a size, averaged where they are finer and interpolated where they are coarser."""
    if maps.shape[-1] > size[-1]:
        return F.interpolate(F.avg_pool2d(maps, 2, ceil_mode=True), size=size, mode="nearest")
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def levels_at(name: str, strides: Sequence[int]) -> list[str]:
    """Return the names of a timm network's modules whose outputs have these strides.

    Raises:
        ValueError: If the network is unknown, or has no level at one of the strides.

    Example:
        >>> levels_at("resnet18", (4, 8, 16))
        ['layer1', 'layer2', 'layer3']
    """
    if not timm.is_model(name):
        msg = f"Expected backbone to be the name of a timm network, got {name!r}. See timm.list_models()."
        raise ValueError(msg)
    information = timm.create_model(name, pretrained=False, num_classes=0).feature_info
    modules = {level["reduction"]: level["module"] for level in information}  # type: ignore[union-attr]
    missing = [stride for stride in strides if stride not in modules]
    if missing:
        msg = (
            f"Expected a backbone with levels at strides {', '.join(map(str, strides))}, got {name!r} with strides "
            f"{', '.join(map(str, sorted(modules)))}. Take a convolutional network such as tf_efficientnet_lite0."
        )
        raise ValueError(msg)
    return [modules[stride] for stride in strides]
