"""Pre-processing that is the same in training and in exported models: resizing with antialiasing."""

from typing import Any

import torch
from anomalib.pre_processing import PreProcessor
from anomalib.pre_processing.utils.transform import get_exportable_transform
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import Compose, Resize, Transform


class AntialiasedPreProcessor(PreProcessor):
    """Pre-processor whose exported form resizes with antialiasing, as the training does.

    anomalib's exported models resize without antialiasing, so large photographs are subsampled instead of averaged and
    their scores differ from those in training. Here the exported form differs by rounding errors only.

    Args:
        transform: Transform of images (N, 3, H, W) in [0, 1]. Antialiasing is exported for bilinear resizing to a
            height and a width, alone or in a :class:`~torchvision.transforms.v2.Compose`; other transforms are
            exported as anomalib does it.

    Example:
        >>> pre_processor = AntialiasedPreProcessor(Resize((64, 64)))
        >>> pre_processor(torch.rand(1, 3, 900, 700)).shape
        torch.Size([1, 3, 64, 64])
    """

    def __init__(self, transform: Transform | None = None) -> None:
        super().__init__(transform)
        self.export_transform = exportable(transform)

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore what ``checkpoint_config`` returned.

        Args:
            config: The configuration.
        """
        super().load_checkpoint_config(config)
        self.export_transform = exportable(self.transform)


class ExportableResize(nn.Module):
    """Bilinear resizing with antialiasing as two matrix products, which every export format supports.

    Args:
        height: Height of the result in pixels.
        width: Width of the result in pixels.

    Example:
        >>> ExportableResize(2, 3)(torch.ones(1, 3, 8, 9)).shape
        torch.Size([1, 3, 2, 3])
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height = height
        self.width = width

    def forward(self, images: Tensor) -> Tensor:
        """Resize.

        Args:
            images: Images (N, C, H, W).

        Returns:
            Images (N, C, height, width).
        """
        rows = interpolation(images.shape[-2], self.height, images)
        columns = interpolation(images.shape[-1], self.width, images)
        return rows @ images @ columns.T


def interpolation(size: int, new_size: int, like: Tensor) -> Tensor:
    """Return the weights (new_size, size) of bilinear interpolation: triangles as wide as two pixels of the result.

    Where the result is larger, as wide as two pixels of the original.

    Args:
        size: Number of pixels.
        new_size: Number of pixels of the result.
        like: Tensor of the device and type to be used.

    Example:
        >>> interpolation(4, 2, torch.empty(0))
        tensor([[0.4286, 0.4286, 0.1429, 0.0000],
                [0.0000, 0.1429, 0.4286, 0.4286]])
    """
    pixels = torch.arange(size, device=like.device, dtype=like.dtype)
    scale = (pixels[-1] + 1) / new_size  # a tensor: the faster way of torch's exporter fails at a quotient of sizes
    centres = (torch.arange(new_size, device=like.device, dtype=like.dtype) + 0.5) * scale - 0.5
    weights = (1 - (pixels - centres[:, None]).abs() / scale.clamp(min=1)).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


def exportable(transform: Transform | None) -> nn.Module | None:
    """Return a transform that can be exported, with antialiased resizing replaced by :class:`ExportableResize`."""
    if isinstance(transform, Resize) and _can_be_replaced(transform):
        return ExportableResize(*transform.size)
    if isinstance(transform, Compose):
        return Compose([exportable(step) for step in transform.transforms])
    return get_exportable_transform(transform)


def _can_be_replaced(resize: Resize) -> bool:
    """Return whether :class:`ExportableResize` does the same."""
    is_bilinear = resize.interpolation in (InterpolationMode.BILINEAR, InterpolationMode.BILINEAR.value)
    return is_bilinear and bool(resize.antialias) and len(resize.size or ()) == 2
