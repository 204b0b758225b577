"""LampAE without Lightning: repair of pixels and features, and a map and a score made of the errors."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_lamp.functional import ERRORS, check_images, errors_by_metric

from .anomaly_map import MAP_METRIC
from .feature_branch import FEATURE_ERRORS, FeatureBranch
from .networks import Autoencoder, UNet
from .score import MapAndScore

TARGETS = ("pixels", "features")
SHARP_MAPS = {"ssim": 1.0}  # the smoothing, in pixels, of each one's map
FEATURE_SMOOTHING = 1.0  # in locations of the features


class LampAEModel(nn.Module):
    """Repair images and their features; in evaluation mode return the anomaly map and the score made from the errors.

    With features, pixels are repaired at half of the resolution.

    Args:
        targets: What is repaired: ``pixels``, ``features``, or both joined by ``+``.
        architecture: For pixels: ``autoencoder`` (everything passes a bottleneck) or ``unet``.
        width: Channels at half resolution; they double with every halving, up to 512. At least 1.
        depth: Number of halvings, at least 2.
        skip_connections: For ``unet``: whether features of the way down join those of the way up.
        latent_channels: For ``autoencoder``: channels of the bottleneck.
        backbone: For features: name of a convolutional timm network with levels at strides 4, 8 and 16.
        image_size: For features: height and width of the images in pixels.
        map_metric: For pixels: error that makes a map: ``l1``, ``l2``, ``ssim``, ``msgms``, ``chroma``, or several
            joined by ``+``.
        smoothing: Standard deviation, in pixels, of the Gaussian that smooths this map; 0 for none.
        sharp_maps: For pixels: further errors that count in map and score, and the smoothing in pixels of each. By
            default ``{"ssim": 1.0}``; ``{}`` for none.
        feature_errors: For features: the errors that count in map and score, ``repair`` and ``distance`` (from normal
            features); both by default.
        calibration: ``none``, or ``location`` to set errors against those of normal images at the same place.
        pooling: How a peak is taken from the map: ``max``, ``mean``, or ``topk`` for the mean of the largest values.
        topk_fraction: For ``topk``: the fraction of pixels that counts, in (0, 1].

    Attributes:
        network: Repairs pixels; ``None`` if only features are.
        features: Repairs features; ``None`` if only pixels are.

    Shape:
        Images (N, 3, H, W) in [0, 1]. In training mode returns the reconstruction, of the same shape or, with features,
        half of the size; in evaluation mode an :class:`anomalib.data.InferenceBatch` with ``anomaly_map`` (N, 1, H, W)
        and ``pred_score`` (N, 1), in [0, 1].

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
        targets: str = "pixels",
        architecture: str = "unet",
        width: int = 16,
        depth: int = 4,
        skip_connections: bool = True,
        latent_channels: int = 64,
        backbone: str = "tf_efficientnet_lite0",
        image_size: tuple[int, int] = (256, 256),
        map_metric: str = MAP_METRIC,
        smoothing: float = 2.5,
        sharp_maps: Mapping[str, float] | None = None,
        feature_errors: Sequence[str] | None = None,
        calibration: str = "none",
        pooling: str = "max",
        topk_fraction: float = 0.001,
    ) -> None:
        super().__init__()
        chosen = targets.split("+")
        if not set(chosen) <= set(TARGETS) or len(set(chosen)) < len(chosen):
            msg = f"Expected targets to be 'pixels', 'features' or 'pixels+features', got {targets!r}."
            raise ValueError(msg)
        if architecture not in self.ARCHITECTURES:
            msg = f"Expected architecture to be one of {list(self.ARCHITECTURES)}, got {architecture!r}."
            raise ValueError(msg)
        if width < 1 or depth < 2 or latent_channels < 1:
            msg = (
                "Expected width >= 1, depth >= 2 and latent_channels >= 1, "
                f"got width={width}, depth={depth}, latent_channels={latent_channels}."
            )
            raise ValueError(msg)
        self.network: Autoencoder | UNet | None = None
        self.features = FeatureBranch(backbone, image_size) if "features" in chosen else None
        evidence: list[tuple[str, float]] = []
        if "pixels" in chosen:
            self.network = (
                Autoencoder(width, depth, latent_channels)
                if architecture == "autoencoder"
                else UNet(width, depth, skip_connections)
            )
            self.network.to(memory_format=torch.channels_last)  # the same numbers, 1.5 times faster on the CPU
            evidence += pixel_evidence(map_metric, smoothing, SHARP_MAPS if sharp_maps is None else sharp_maps)
        if self.features is not None:
            evidence += feature_evidence(FEATURE_ERRORS if feature_errors is None else feature_errors)
        # batch norm needs more than one value in the smallest feature map
        self.smallest_side = 2 ** (depth + 1) * self.pixel_reduction if self.network is not None else 1
        self.map_and_score = MapAndScore(evidence, calibration, pooling, topk_fraction)

    @property
    def pixel_reduction(self) -> int:
        """By how much images are reduced before their pixels are repaired: 2 with features, else 1."""
        return 1 if self.features is None else 2

    def reduced(self, images: Tensor) -> Tensor:
        """Return images at the resolution at which pixels are repaired."""
        return F.avg_pool2d(images, 2) if self.pixel_reduction == 2 else images

    def reconstruct(self, images: Tensor) -> Tensor:
        """Return the reconstruction of ``images`` in [0, 1], of the same shape or, with features, half of the size."""
        return self.repair_pixels(self.reduced(self._checked(images)))

    def repair_pixels(self, images: Tensor) -> Tensor:
        """Return the reconstruction of images at the resolution at which pixels are repaired, same shape."""
        if self.network is None:
            msg = "Expected targets with 'pixels' for a reconstruction, got 'features'."
            raise ValueError(msg)
        return self.network(images)

    def _checked(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[-2:]) < self.smallest_side:
            msg = (
                f"Expected images of shape (N, 3, H, W) with H and W at least {self.smallest_side}, "
                f"got shape {tuple(images.shape)}. Enlarge the images or lower `depth`."
            )
            raise ValueError(msg)
        return images

    def errors(self, images: Tensor) -> dict[str, Tensor]:
        """Return the errors (N, h, w) of images that map and score are made from, by name."""
        images = self._checked(images)
        errors: dict[str, Tensor] = {}
        if self.network is not None:
            reduced = self.reduced(images)
            metrics = [metric for metric in self.map_and_score.metrics if metric in ERRORS]
            errors |= errors_by_metric(self.network(reduced), reduced, metrics)
        if self.features is not None:
            errors |= self.features.errors(images)
        return errors

    def forward(self, images: Tensor) -> Tensor | InferenceBatch:
        """Return the reconstruction in training mode, the predictions in evaluation mode."""
        if self.training:  # the loss checks images
            return self.reconstruct(images)
        check_images(images)
        anomaly_map, score = self.map_and_score(self.errors(images))
        enlarged = F.interpolate(anomaly_map, size=images.shape[-2:], mode="bilinear", align_corners=False)
        return InferenceBatch(pred_score=score, anomaly_map=enlarged)


def pixel_evidence(map_metric: str, smoothing: float, sharp_maps: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the kinds of evidence that pixels give, with the smoothing of each.

    Raises:
        ValueError: If an error is not one of pixels.
    """
    evidence = [(map_metric, smoothing), *sharp_maps.items()]
    for metrics, _ in evidence:
        if not set(metrics.split("+")) <= set(ERRORS):
            msg = f"Expected map_metric to be one of {sorted(ERRORS)}, or several joined by '+', got {metrics!r}."
            raise ValueError(msg)
    return evidence


def feature_evidence(errors: Sequence[str]) -> list[tuple[str, float]]:
    """Return the kinds of evidence that features give, with the smoothing of each.

    Raises:
        ValueError: If an error is not one of features, or there is none.
    """
    if not errors or set(errors) - set(FEATURE_ERRORS):
        msg = f"Expected feature_errors from {list(FEATURE_ERRORS)}, got {list(errors)}."
        raise ValueError(msg)
    return [(error, FEATURE_SMOOTHING) for error in errors]
