"""The network that returns features as they would be without a defect, and how it is damaged and judged."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_lamp.corruption import blob, hairlines, uniform

from .features import Layout, Levels
from .networks import conv_block

WIDTHS = (64, 96, 128)  # channels at strides 8, 16 and 32
INITIAL_OUTPUT_SCALE = 0.3  # of the last layers' weights: the training begins near the usual features of a place
REGIONS = 3
AREAS = (0.004, 0.3)  # smallest and largest damaged region, as fractions of the image
MAX_NOISE = 0.5  # standard deviation of added noise, in standard deviations of a channel


def pointwise(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return convolution 1 x 1, batch norm, leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.LeakyReLU(0.2, True)
    )


class FeatureRepair(nn.Module):
    """Return clean features from damaged ones.

    A small U-shaped network without skip connections: everything passes stride 32. A map of learned numbers is added at
    strides 8 and 16, so that it knows the place. Input and output are deviations from the usual features of a place.

    Args:
        layout: How features lie in a row.

    Shape:
        Packed deviations (N, L) to the same.

    Example:
        >>> layout = Layout((24, 40, 112), (16, 16), (8, 8))
        >>> FeatureRepair(layout).eval()(torch.randn(2, layout.length)).shape == (2, layout.length)
        True
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        fine, coarse = layout.channels[0] + layout.channels[1], layout.channels[2]
        wide, wider, widest = WIDTHS
        self.fine_place = nn.Parameter(torch.zeros(wide, *layout.size))
        self.coarse_place = nn.Parameter(torch.zeros(wider, *layout.coarse_size))
        self.enter_fine = pointwise(fine, wide)
        self.down_fine = conv_block(wide, wider, stride=2)
        self.enter_coarse = nn.Sequential(pointwise(wider + coarse, wider), conv_block(wider, wider))
        self.middle = nn.Sequential(
            conv_block(wider, widest, stride=2), conv_block(widest, widest), conv_block(widest, widest, dilation=2)
        )
        self.up_coarse = conv_block(widest, wider)
        self.leave_coarse = nn.Sequential(pointwise(wider, wider), nn.Conv2d(wider, coarse, 1))
        self.up_fine = pointwise(wider, wide)
        self.leave_fine = nn.Sequential(
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.LeakyReLU(0.2, inplace=True),
            pointwise(wide, wide),
            nn.Conv2d(wide, fine, 1),
        )
        for last in (self.leave_coarse[-1], self.leave_fine[-1]):
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]
            last.weight.data.mul_(INITIAL_OUTPUT_SCALE)  # type: ignore[operator]

    def forward(self, deviations: Tensor) -> Tensor:
        """Return the repaired deviations."""
        levels = self.layout.unpacked(deviations)
        fine, coarse = (maps.contiguous(memory_format=torch.channels_last) for maps in levels)
        x = torch.cat([_at(self.down_fine(self.enter_fine(fine)), coarse), coarse], dim=1)
        x = self.enter_coarse[1](self.enter_coarse[0](x) + self.coarse_place)
        x = self.up_coarse(_at(self.middle(x), coarse)) + self.coarse_place
        repaired_coarse = self.leave_coarse(x)
        x = F.interpolate(self.up_fine(x), size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return Levels(self.leave_fine(x + self.fine_place), repaired_coarse).packed()


def _at(maps: Tensor, like: Tensor) -> Tensor:
    """Return maps at the size of others."""
    return F.interpolate(maps, size=like.shape[-2:], mode="nearest")


def feature_errors(repaired: Levels, target: Levels, channels: Sequence[int]) -> dict[str, Tensor]:
    r"""Return the error :math:`(1 - \cos) / 2` of every location of each stride, (N, h, w) in [0, 1].

    Args:
        repaired: Repaired features.
        target: What they should be.
        channels: Number of channels at strides 4, 8 and 16.

    Example:
        >>> levels = Levels(torch.randn(1, 6, 4, 4), torch.randn(1, 5, 2, 2))
        >>> errors = feature_errors(levels, Levels(-levels.fine, -levels.coarse), [2, 4, 5])
        >>> {name: round(error.mean().item(), 4) for name, error in errors.items()}
        {'stride4': 1.0, 'stride8': 1.0, 'stride16': 1.0}
    """
    repaired4, repaired8 = repaired.fine.split(list(channels[:2]), dim=1)
    target4, target8 = target.fine.split(list(channels[:2]), dim=1)
    pairs = {
        "stride4": (repaired4, target4),
        "stride8": (repaired8, target8),
        "stride16": (repaired.coarse, target.coarse),
    }
    return {name: ((1 - F.cosine_similarity(*pair, dim=1)) / 2).clamp(0, 1) for name, pair in pairs.items()}


def damage_features(levels: Levels) -> Levels:
    """Return standardised features damaged in random regions, and with noise.

    Several times a region of random shape is drawn in every image and blended with other features: from another place
    of the image or of another image, scaled and shifted, or smoothed. What a defect does to features is not known;
    these kinds are as varied as they are cheap.

    Args:
        levels: Features with mean 0 and standard deviation 1 in every channel.

    Example:
        >>> damage_features(Levels(torch.randn(2, 6, 16, 16), torch.randn(2, 5, 8, 8))).fine.shape
        torch.Size([2, 6, 16, 16])
    """
    damaged = levels
    for _ in range(REGIONS):
        filling = FILLINGS[_integer(len(FILLINGS))](levels)
        grid = levels.fine[:, :1]
        mask = hairlines(grid) if torch.rand(()) < 0.2 else blob(grid, *AREAS)
        opacity = uniform(grid, 0.25, 1.0) * (uniform(grid, 0, 1) < 2 / 3) * mask
        coarse_opacity = F.adaptive_max_pool2d(opacity, levels.coarse.shape[-2:])
        damaged = Levels(
            torch.lerp(damaged.fine, filling.fine, opacity),
            torch.lerp(damaged.coarse, filling.coarse, coarse_opacity),
        )
    noise = uniform(levels.fine, 0, MAX_NOISE)
    return Levels(*(maps + noise * torch.randn_like(maps) for maps in damaged))


def _integer(below: int) -> int:
    return int(torch.randint(below, ()).item())


def _elsewhere(levels: Levels) -> Levels:
    """Return the features of another place of each image."""
    down, right = (0.125 + 0.75 * torch.rand(2)).tolist()  # as fractions of the sides
    return Levels(*(torch.roll(maps, _shift(maps, down, right), dims=(2, 3)) for maps in levels))


def _shift(maps: Tensor, down: float, right: float) -> tuple[int, int]:
    return math.floor(down * maps.shape[2]), math.floor(right * maps.shape[3])


def _other_image(levels: Levels) -> Levels:
    """Return the features of another place of another image."""
    return _elsewhere(Levels(*(maps.roll(1, dims=0) for maps in levels)))


def _scaled(levels: Levels) -> Levels:
    """Return the features scaled and shifted by numbers of each image and channel."""
    scale = uniform(levels.fine, -0.5, 2.0)
    return Levels(*(maps * scale + 0.7 * torch.randn_like(maps[:, :, :1, :1]) for maps in levels))


def _smoothed(levels: Levels) -> Levels:
    """Return the features averaged over a neighbourhood of about 72 pixels."""
    return Levels(*(_averaged(maps, side) for maps, side in zip(levels, (9, 5), strict=True)))


def _averaged(maps: Tensor, side: int) -> Tensor:
    """Return the mean over side x side locations, fewer at the border: over columns, then over rows."""
    for kernel in ((side, 1), (1, side)):
        padding = (kernel[0] // 2, kernel[1] // 2)
        maps = F.avg_pool2d(maps, kernel, stride=1, padding=padding, count_include_pad=False)
    return maps


FILLINGS = (_elsewhere, _other_image, _scaled, _smoothed)
