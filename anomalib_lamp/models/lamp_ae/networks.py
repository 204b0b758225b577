"""The networks of LampAE, which return repaired or reconstructed images."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_lamp.functional import at_least_float32

MAX_CHANNELS = 512
FINEST_SKIP_LEVEL = 1  # level 0 has half the resolution


def conv_block(in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Return convolution 3 x 3, batch norm, leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=dilation, dilation=dilation, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(0.2, inplace=True),
    )


class Autoencoder(nn.Module):
    """Convolutional autoencoder: halve the image ``depth`` times, squeeze the channels, and enlarge again.

    Args:
        width: Channels at half resolution; they double with every halving, up to 512.
        depth: Number of halvings.
        latent_channels: Channels of the smallest feature map, the bottleneck.

    Shape:
        (N, 3, H, W) in [0, 1] to the same shape in [0, 1]; H and W at least ``2 ** depth``, in training twice that.

    Example:
        >>> Autoencoder(width=8, depth=3)(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 3, 64, 64])
    """

    def __init__(self, width: int = 16, depth: int = 4, latent_channels: int = 64) -> None:
        super().__init__()
        channels = [min(width * 2**level, MAX_CHANNELS) for level in range(depth)]
        self.down = nn.ModuleList(conv_block(i, o, stride=2) for i, o in zip([3, *channels], channels, strict=False))
        self.squeeze = nn.Conv2d(channels[-1], latent_channels, 1)
        self.expand = conv_block(latent_channels, channels[-1])
        self.up = nn.ModuleList(
            conv_block(i, o) for i, o in zip(channels[::-1], [*channels[-2::-1], width], strict=True)
        )
        self.head = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the reconstruction of ``images``."""
        sizes = []
        x = images
        for block in self.down:
            sizes.append(x.shape[-2:])
            x = block(x)
        x = self.expand(self.squeeze(x))
        for block, size in zip(self.up, reversed(sizes), strict=True):
            x = block(F.interpolate(x, size=size, mode="nearest"))
        return torch.sigmoid(at_least_float32(self.head(x)))


class UNet(nn.Module):
    """U-Net that works from half resolution downwards, with a dilated middle for a large receptive field.

    Skip connections begin at a quarter of the resolution: finer ones would copy every detail, the anomalous ones too.

    Args:
        width: Channels at half resolution; they double with every halving, up to 512.
        depth: Number of halvings.
        skip_connections: Whether features of the way down join those of the same size on the way up, from a quarter of
            the resolution down, so from a depth of 3. Without them the whole image has to pass the smallest feature
            map.

    Shape:
        (N, 3, H, W) in [0, 1] to the same shape in [0, 1]; H and W at least ``2 ** depth``, in training twice that.

    Example:
        >>> UNet(width=8, depth=3)(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 3, 64, 64])
    """

    def __init__(self, width: int = 16, depth: int = 4, skip_connections: bool = True) -> None:
        super().__init__()
        channels = [min(width * 2**level, MAX_CHANNELS) for level in range(depth)]
        self.skip_connections = skip_connections
        self.down = nn.ModuleList(
            nn.Sequential(conv_block(i, o, stride=2), conv_block(o, o))
            for i, o in zip([3, *channels], channels, strict=False)
        )
        self.middle = nn.Sequential(*(conv_block(channels[-1], channels[-1], dilation=d) for d in (2, 4)))
        self.up = nn.ModuleList(
            nn.Sequential(
                conv_block(channels[level + 1] + self._skipped(level) * width, width), conv_block(width, width)
            )
            for level, width in reversed(list(enumerate(channels[:-1])))
        )
        self.head = nn.Conv2d(channels[0], 3, 3, padding=1)

    def _skipped(self, level: int) -> bool:
        """Return whether features of a level join those on the way up."""
        return self.skip_connections and level >= FINEST_SKIP_LEVEL

    def forward(self, images: Tensor) -> Tensor:
        """Return the reconstruction of ``images``."""
        features = []
        x = images
        for block in self.down:
            x = block(x)
            features.append(x)
        x = self.middle(x)
        for level, block in zip(reversed(range(len(self.up))), self.up, strict=True):
            x = F.interpolate(x, size=features[level].shape[-2:], mode="nearest")
            x = block(torch.cat([x, features[level]], dim=1) if self._skipped(level) else x)
        x = F.interpolate(x, size=images.shape[-2:], mode="bilinear", align_corners=False)
        return torch.sigmoid(at_least_float32(self.head(x)))
