"""The model without Lightning: Gaussians of a backbone's features, the distance to them, score and map."""

from collections.abc import Iterable, Sequence

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_lamp.backbone import Backbone
from anomalib_lamp.functional import check_images, gaussian_blur

from .gaussian import Gaussian, LevelSamples, spatial_mean

MAX_MAP_CHANNELS = 512


class FineTunedGaussianModel(nn.Module):
    """Return how far images are from the normal ones: distances in training mode, else score and anomaly map.

    The distance of an image is the sum over levels of the Mahalanobis distance of the level's spatial mean. The anomaly
    map is the same sum per location: every level has a mean of its own at each location, and one covariance for all
    locations, estimated from 16 locations of every image. Levels of more than 512 channels are left out of the map:
    their grid is the coarsest, their covariance the largest.

    Distances become scores in [0, 1) by ``d / (d + s)``, where ``s`` is the distance that normal images have if they
    are as the Gaussians say (the sum over levels of the root of the channels): strictly monotone, and without
    saturation as far as float32 goes.

    Args:
        backbone: Name of a convolutional timm network.
        layers: Names of its modules whose outputs are the levels; see :class:`Backbone` for the default.
        image_size: Height and width of the images.
        smoothing: Standard deviation, in pixels, of the Gaussian that smooths the map; 0 for none.

    Shape:
        Images (N, 3, H, W) in [0, 1], of ``image_size``. In training mode returns distances (N); in evaluation mode an
        :class:`anomalib.data.InferenceBatch` with ``anomaly_map`` (N, 1, H, W) and ``pred_score`` (N, 1).

    Raises:
        ValueError: If an argument is unknown or out of range, or images have another size.

    Example:
        >>> model = FineTunedGaussianModel("resnet18", image_size=(64, 64)).eval()
        >>> model.fit([torch.rand(4, 3, 64, 64), torch.rand(4, 3, 64, 64)])
        >>> predictions = model(torch.rand(2, 3, 64, 64))
        >>> predictions.anomaly_map.shape, predictions.pred_score.shape
        (torch.Size([2, 1, 64, 64]), torch.Size([2, 1]))
    """

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        layers: Sequence[str] | None = None,
        image_size: tuple[int, int] = (256, 256),
        smoothing: float = 4.0,
    ) -> None:
        super().__init__()
        if smoothing < 0:
            msg = f"Expected smoothing to be 0 or a standard deviation in pixels, got {smoothing}."
            raise ValueError(msg)
        self.image_size = tuple(image_size)
        self.smoothing = smoothing
        self.backbone = Backbone(backbone, layers).requires_grad_(False)
        shapes = self._level_shapes()
        self.gaussians = nn.ModuleList(Gaussian(channels) for channels, _, _ in shapes)
        self.levels_in_map = [level for level, shape in enumerate(shapes) if shape[0] <= MAX_MAP_CHANNELS]
        if not self.levels_in_map:
            msg = f"Expected a layer of at most {MAX_MAP_CHANNELS} channels for the map, got {self.backbone.layers}."
            raise ValueError(msg)
        self.location_gaussians = nn.ModuleList(Gaussian(*shapes[level]) for level in self.levels_in_map)

    def _level_shapes(self) -> list[tuple[int, int, int]]:
        """Return channels, height and width of every level."""
        with torch.no_grad():
            levels = self.backbone(torch.zeros(1, 3, *self.image_size))
        for layer, maps in zip(self.backbone.layers, levels, strict=True):
            if maps.ndim != 4:
                msg = f"Expected layer {layer!r} to give maps (N, C, H, W), got shape {tuple(maps.shape)}."
                raise ValueError(msg)
        return [tuple(maps.shape[1:]) for maps in levels]

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Fit all Gaussians to the features of normal images.

        Args:
            batches: Images (N, 3, H, W) in [0, 1]; they are read once.

        Raises:
            ValueError: If there is no image.
        """
        levels = self._collect(batches)
        for gaussian, samples in zip(self.gaussians, levels, strict=True):
            gaussian.fit(*samples.image_statistics())  # type: ignore[operator]
        self._fit_locations(levels)

    @torch.no_grad()
    def fit_locations(self, batches: Iterable[Tensor]) -> None:
        """Fit the Gaussians of the map only: after fine-tuning those of the score stay as they were."""
        self._fit_locations(self._collect(batches))

    def _fit_locations(self, levels: list[LevelSamples]) -> None:
        for gaussian, level in zip(self.location_gaussians, self.levels_in_map, strict=True):
            gaussian.fit(*levels[level].location_statistics())  # type: ignore[operator]

    def _collect(self, batches: Iterable[Tensor]) -> list[LevelSamples]:
        """Return what is kept of every level's maps."""
        levels = [LevelSamples() for _ in self.gaussians]
        empty = True
        for images in batches:
            empty = False
            for samples, maps in zip(levels, self.backbone(images), strict=True):
                samples.add(maps)
        if empty:
            msg = "Expected at least one normal image to fit the Gaussians to, got none."
            raise ValueError(msg)
        return levels

    def distance(self, levels: list[Tensor]) -> Tensor:
        """Return the distance (N) of images from the normal ones, given their feature maps."""
        distances = [gaussian(spatial_mean(maps)) for gaussian, maps in zip(self.gaussians, levels, strict=True)]
        return torch.stack(distances).sum(dim=0)

    def location_distance(self, levels: list[Tensor]) -> Tensor:
        """Return the distance of every pixel (N, 1, H, W), given the feature maps."""
        maps = [levels[level] for level in self.levels_in_map]
        distances = [gaussian(maps).unsqueeze(1) for gaussian, maps in zip(self.location_gaussians, maps, strict=True)]
        enlarged = [F.interpolate(d, size=self.image_size, mode="bilinear", align_corners=False) for d in distances]
        total = torch.stack(enlarged).sum(dim=0)
        return gaussian_blur(total, self.smoothing) if self.smoothing else total

    def forward(self, images: Tensor) -> Tensor | InferenceBatch:
        """Return the distances in training mode, the predictions in evaluation mode."""
        if images.ndim != 4 or images.shape[1] != 3 or tuple(images.shape[-2:]) != self.image_size:
            msg = (
                f"Expected images of shape (N, 3, {', '.join(map(str, self.image_size))}), got {tuple(images.shape)}. "
                "Resize them, or set image_size."
            )
            raise ValueError(msg)
        check_images(images)
        levels = self.backbone(images)
        distance = self.distance(levels)
        if self.training:
            return distance
        return InferenceBatch(
            pred_score=squash(distance, typical_distance(self.gaussians)).unsqueeze(1),
            anomaly_map=squash(self.location_distance(levels), typical_distance(self.location_gaussians)),
        )


def typical_distance(gaussians: Iterable[nn.Module]) -> float:
    """Return the distance that normal samples have on average if they are as the Gaussians say, summed over levels."""
    return sum(gaussian.typical_distance for gaussian in gaussians)  # type: ignore[misc]


def squash(distance: Tensor, scale: float) -> Tensor:
    """Return scores in [0, 1) that grow strictly with the distance; 0.5 at the scale.

    Example:
        >>> squash(torch.tensor([0.0, 2.0, 6.0]), scale=2.0)
        tensor([0.0000, 0.5000, 0.7500])
    """
    return distance / (distance + scale)
