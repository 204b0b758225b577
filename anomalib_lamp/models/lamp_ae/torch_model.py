"""The networks of LampAE, and the model that turns a reconstruction into an anomaly map and a score. No Lightning."""

from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_lamp.functional import at_least_float32

from .anomaly_map import MAP_METRIC, AnomalyMapGenerator, errors_by_metric
from .score import SCORE_METRICS, ScoreGenerator

MAX_CHANNELS = 512
FINEST_SKIP = 1  # number of halvings less one


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
        """Return whether features of a level join those on the way up; level 0 has half the resolution."""
        return self.skip_connections and level >= FINEST_SKIP

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


class LampAEModel(nn.Module):
    """Reconstruct images; in evaluation mode return the anomaly map and the score made from the error.

    Args:
        architecture: ``autoencoder`` (everything passes a bottleneck) or ``unet``.
        width: Channels at half resolution; they double with every halving, up to 512. At least 1.
        depth: Number of halvings, at least 2.
        skip_connections: For ``unet``: whether features of the way down join those of the way up.
        latent_channels: For ``autoencoder``: channels of the bottleneck.
        map_metric: Error that makes the anomaly map: ``l1``, ``l2``, ``ssim``, ``msgms``, ``chroma``, or several joined
            by ``+``.
        smoothing: Standard deviation, in pixels, of the Gaussian that smooths the map; 0 for none.
        calibration: ``none``, or ``location`` to set errors against those of normal images at the same place.
        score_metrics: Errors that make the score, each with the smoothing of its map; by default ``ssim`` with 1 pixel
            and ``ssim+msgms+chroma`` with 2.5.
        pooling: How a peak is taken from a map: ``max``, ``mean``, or ``topk`` for the mean of the largest values.
        topk_fraction: For ``topk``: the fraction of pixels that counts, in (0, 1].

    Shape:
        Images (N, 3, H, W) in [0, 1]. In training mode returns the reconstruction, same shape; in evaluation mode an
        :class:`anomalib.data.InferenceBatch` with ``anomaly_map`` (N, 1, H, W) and ``pred_score`` (N, 1), in [0, 1].
        Metric, calibration and pooling are part of the state dict: :func:`~.calibration.calibrate` may decide them.

    Raises:
        ValueError: If an argument is unknown or out of range, or the images are too small for the depth.

    Example:
        >>> model = LampAEModel(width=8, depth=3).eval()
        >>> predictions = model(torch.rand(2, 3, 64, 64))
        >>> predictions.anomaly_map.shape, predictions.pred_score.shape
        (torch.Size([2, 1, 64, 64]), torch.Size([2, 1]))
    """

    ARCHITECTURES: ClassVar = ("autoencoder", "unet")

    def __init__(
        self,
        architecture: str = "unet",
        width: int = 16,
        depth: int = 4,
        skip_connections: bool = True,
        latent_channels: int = 64,
        map_metric: str = MAP_METRIC,
        smoothing: float = 2.5,
        calibration: str = "none",
        score_metrics: Mapping[str, float] | None = None,
        pooling: str = "max",
        topk_fraction: float = 0.001,
    ) -> None:
        super().__init__()
        if architecture not in self.ARCHITECTURES:
            msg = f"Expected architecture to be one of {list(self.ARCHITECTURES)}, got {architecture!r}."
            raise ValueError(msg)
        if width < 1 or depth < 2 or latent_channels < 1:
            msg = (
                "Expected width >= 1, depth >= 2 and latent_channels >= 1, "
                f"got width={width}, depth={depth}, latent_channels={latent_channels}."
            )
            raise ValueError(msg)
        self.smallest_side = 2 ** (depth + 1)  # batch norm needs more than one value in the smallest feature map
        self.network: nn.Module = (
            Autoencoder(width, depth, latent_channels)
            if architecture == "autoencoder"
            else UNet(width, depth, skip_connections)
        )
        self.network.to(memory_format=torch.channels_last)  # the same numbers, 1.5 times faster on the CPU
        self.anomaly_map_generator = AnomalyMapGenerator(map_metric, smoothing, calibration)
        self.score_generator = ScoreGenerator(
            SCORE_METRICS if score_metrics is None else score_metrics, calibration, pooling, topk_fraction
        )

    def reconstruct(self, images: Tensor) -> Tensor:
        """Return the reconstruction of ``images``, same shape, in [0, 1]."""
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[-2:]) < self.smallest_side:
            msg = (
                f"Expected images of shape (N, 3, H, W) with H and W at least {self.smallest_side}, "
                f"got shape {tuple(images.shape)}. Enlarge the images or lower `depth`."
            )
            raise ValueError(msg)
        return self.network(images)

    def errors(self, reconstruction: Tensor, images: Tensor, metrics: Iterable[str] = ()) -> dict[str, Tensor]:
        """Return the errors (N, H, W) that map and score are made from, and those of other metrics."""
        needed = dict.fromkeys((*self.anomaly_map_generator.metrics, *self.score_generator.metrics, *metrics))
        return errors_by_metric(reconstruction, images, needed)

    def decide(self, map_metric: str, calibration: str, pooling: str) -> None:
        """Set how maps and scores are made from now on."""
        self.anomaly_map_generator.metric = map_metric
        self.anomaly_map_generator.calibration = calibration
        self.score_generator.set_calibration(calibration)
        self.score_generator.pooling = pooling

    def calibrate(self, errors: Mapping[str, Tensor]) -> None:
        """Calibrate map and score with the :meth:`errors` of normal images, at least 2 of them."""
        self.anomaly_map_generator.calibrate(errors)
        self.score_generator.calibrate(errors)

    def get_extra_state(self) -> dict[str, str]:
        """Return what was decided about map and score, for the state dict."""
        maps = self.anomaly_map_generator
        return {
            "map_metric": maps.metric,
            "calibration": maps.calibration,
            "pooling": self.score_generator.pooling,
        }

    def set_extra_state(self, state: dict[str, str]) -> None:
        """Take over what was decided about map and score."""
        self.decide(**state)

    def forward(self, images: Tensor) -> Tensor | InferenceBatch:
        """Return the reconstruction in training mode, the predictions in evaluation mode."""
        reconstruction = self.reconstruct(images)
        if self.training:
            return reconstruction
        errors = self.errors(reconstruction, images)
        return InferenceBatch(
            pred_score=self.score_generator(errors), anomaly_map=self.anomaly_map_generator.map_of(errors)
        )
