"""Training images kept from learning, for models that check themselves on normal images they have not learnt."""

from collections.abc import Iterator, Sequence

import torch
from anomalib.data import ImageBatch
from anomalib.pre_processing import PreProcessor
from lightning import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, Subset


class HeldOutMixin(LightningModule):
    """Splits the training images by the model's seed; held-out ones are known by their paths.

    The test images are not touched, and neither are the validation images, which anomalib takes from them by default.

    Attributes:
        held_out_fraction: Fraction of the training images that is held out, in (0, 1).
        held_out_at_least: Fewer are not held out; if that were more than half of the images, none are.
        held_out_at_most: More are not held out.
        seed: Seed of the choice, or ``None`` for always the same.
    """

    held_out_fraction: float
    held_out_at_least: int
    held_out_at_most: int
    seed: int | None
    _held_out_paths: frozenset[str] = frozenset()

    def split_training_images(self) -> tuple[list[int], list[int]]:
        """Return the indices of the training images to learn from, and of those held out."""
        count = len(self._train_loader.dataset)  # type: ignore[arg-type]
        held_out = min(max(round(self.held_out_fraction * count), self.held_out_at_least), self.held_out_at_most)
        if held_out > count // 2:
            held_out = 0
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed or 0)).tolist()
        return sorted(order[held_out:]), sorted(order[:held_out])

    def hold_out(self, indices: Sequence[int]) -> Tensor:
        """Keep training images from learning, and return them, of shape (N, 3, H, W)."""
        batches = list(self.training_batches(indices))
        self._held_out_paths = frozenset(path for batch in batches for path in image_paths(batch))
        return torch.cat([batch.image for batch in batches])  # type: ignore[misc]

    def let_go(self) -> None:
        """Forget which images were held out; they would be kept with the model."""
        self._held_out_paths = frozenset()

    def to_learn(self, batch: ImageBatch) -> Tensor:
        """Return the images of a batch that are not held out."""
        images: Tensor = batch.image  # type: ignore[assignment]
        if not self._held_out_paths:
            return images
        return images[[path not in self._held_out_paths for path in image_paths(batch)]]

    def training_batches(self, indices: Sequence[int]) -> Iterator[ImageBatch]:
        """Read training images in the order of their indices, pre-processed as for training, onto the device."""
        loader = self._train_loader
        for batch in DataLoader(
            Subset(loader.dataset, indices),
            batch_size=loader.batch_size,
            collate_fn=loader.collate_fn,
            num_workers=loader.num_workers,
        ):
            batch.image = batch.image.to(self.device)
            if isinstance(self.pre_processor, PreProcessor):
                self.pre_processor.on_train_batch_start(self.trainer, self, batch, 0)
            yield batch

    @property
    def _train_loader(self) -> DataLoader:
        return self.trainer.train_dataloader  # type: ignore[return-value]


def image_paths(batch: ImageBatch) -> list[str]:
    """Return the paths of a batch's images, by which held-out images are known."""
    if batch.image_path is None:
        msg = "Expected training images with paths, by which held-out ones are known; anomalib's datasets give them."
        raise ValueError(msg)
    return batch.image_path
