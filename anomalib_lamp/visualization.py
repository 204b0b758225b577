"""Pictures of results: anomalib's image visualizer with the reconstruction beside the image."""

from pathlib import Path
from typing import Any

from anomalib.data import ImageItem
from anomalib.utils.path import generate_output_filename
from anomalib.visualization import ImageVisualizer
from anomalib.visualization.image.functional import add_text_to_image, create_image_grid, visualize_image
from anomalib.visualization.image.item_visualizer import visualize_image_item
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import Tensor


class ReconstructionVisualizer(ImageVisualizer):
    """Show image, ground truth, reconstruction, heat map and predicted mask side by side.

    The heat map uses the normalised scores: 0.5 is the threshold, so colours are comparable between pictures.
    Takes the arguments of :class:`anomalib.visualization.ImageVisualizer`; the reconstruction comes after ``fields``
    and before ``overlay_fields``. The Lightning module's ``model`` must have a method ``reconstruct(images)``.

    Example:
        >>> visualizer = ReconstructionVisualizer(field_size=(128, 128))
        >>> visualizer.fields
        ['image', 'gt_mask']
    """

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ARG002  the signature is anomalib's
        batch: Any,
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Save a picture of every image of the batch under ``images/`` in the results folder."""
        output_dir = self.output_dir or Path(trainer.default_root_dir) / "images"
        datamodule = getattr(trainer, "datamodule", None)
        reconstructions = pl_module.model.reconstruct(batch.image)  # type: ignore[union-attr, operator]
        for item, reconstruction in zip(batch, reconstructions, strict=True):
            filename = generate_output_filename(
                input_path=item.image_path or "",
                output_path=output_dir,
                dataset_name=getattr(datamodule, "name", None),
                category=getattr(datamodule, "category", None),
            )
            self.visualize_reconstruction(item, reconstruction).save(filename)

    def visualize_reconstruction(self, item: ImageItem, reconstruction: Tensor) -> Image.Image:
        """Return the panels of one image side by side.

        Args:
            item: The image with its predictions.
            reconstruction: Its reconstruction (3, H, W) in [0, 1].
        """
        options: dict[str, Any] = {
            "field_size": self.field_size,
            "fields_config": self.fields_config,
            "overlay_fields_config": self.overlay_fields_config,
            "text_config": self.text_config,
        }
        panel = visualize_image(reconstruction.cpu()).convert("RGB").resize(self.field_size)
        text = dict(self.text_config)
        if text.pop("enable", True):
            panel = add_text_to_image(panel, "Reconstruction", **text)
        panels = [
            *(visualize_image_item(item, fields=[field], **options) for field in self.fields),
            panel,
            *(visualize_image_item(item, overlay_fields=[overlay], **options) for overlay in self.overlay_fields),
        ]
        shown = [panel for panel in panels if panel is not None]
        return create_image_grid(shown, nrow=len(shown))
