"""Pictures of results: anomalib's image visualizer, one picture for every image, with the reconstruction beside it."""

from collections.abc import Iterator
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


class ImagePictures(ImageVisualizer):
    """anomalib's visualizer, with a picture of its own for every image.

    anomalib names a picture by the image's file and folder, so ``line1/ng/000.png`` and ``line2/ng/000.png`` would be
    the same picture, that of the last image. Here the second one is saved with as many more of its folders as tell them
    apart: ``ng/000.png`` and ``line2/ng/000.png``. Takes the arguments of
    :class:`anomalib.visualization.ImageVisualizer`.

    Example:
        >>> ImagePictures(field_size=(128, 128)).field_size
        (128, 128)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._images: dict[Path, str] = {}  # the image that each picture is of

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_images": {}}  # an exported model does not tell which images it has seen

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
        for item, picture in zip(batch, self.pictures(pl_module, batch), strict=True):
            if picture is not None:
                picture.save(self.picture_file(item.image_path or "", trainer))

    def pictures(self, pl_module: LightningModule, batch: Any) -> Iterator[Image.Image | None]:
        """Return the pictures of a batch in the order of its images."""
        del pl_module
        for item in batch:
            yield self.visualize(item)  # type: ignore[misc]  # of one item it is one picture

    def picture_file(self, image_path: str, trainer: Trainer) -> Path:
        """Return where the picture of an image goes, with its folder made; the same for the same image."""
        folder = Path(self.output_dir or Path(trainer.default_root_dir) / "images")
        datamodule = getattr(trainer, "datamodule", None)
        usual = generate_output_filename(
            input_path=image_path,
            output_path=folder,
            dataset_name=getattr(datamodule, "name", None),
            category=getattr(datamodule, "category", None),
        )
        parts = Path(image_path).absolute().parts[1:]
        longer = (folder.joinpath(*parts[-length:]) for length in range(2, len(parts) + 1))
        free = (file for file in (usual, *longer) if self._images.setdefault(file, image_path) == image_path)
        file = next(free, usual)
        file.parent.mkdir(parents=True, exist_ok=True)
        return file


class ReconstructionVisualizer(ImagePictures):
    """Show image, ground truth, reconstruction, heat map and predicted mask side by side.

    The heat map uses the normalised scores: 0.5 is the threshold, so colours are comparable between pictures.
    Takes the arguments of :class:`anomalib.visualization.ImageVisualizer`; the reconstruction comes after ``fields``
    and before ``overlay_fields``. The Lightning module's ``model`` must have a method ``reconstruct(images)`` and
    an attribute ``network``; where that is ``None``, there is no reconstruction to show.

    Example:
        >>> visualizer = ReconstructionVisualizer(field_size=(128, 128))
        >>> visualizer.fields
        ['image', 'gt_mask']
    """

    def pictures(self, pl_module: LightningModule, batch: Any) -> Iterator[Image.Image | None]:
        """Return the pictures of a batch in the order of its images."""
        if pl_module.model.network is None:  # type: ignore[union-attr]
            yield from super().pictures(pl_module, batch)
            return
        reconstructions = pl_module.model.reconstruct(batch.image)  # type: ignore[union-attr, operator]
        yield from map(self.visualize_reconstruction, batch, reconstructions)

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
