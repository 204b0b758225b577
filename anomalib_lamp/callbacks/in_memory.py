"""Keeps resized training images in memory: decoding photographs in every epoch takes longer than learning them."""

import dataclasses
import logging
from typing import Any

import torch
from anomalib.data import AnomalibDataModule, ImageItem
from anomalib.data.datasets.base.image import AnomalibDataset
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.progress import track
from torch.utils.data import DataLoader, RandomSampler
from torchvision.transforms.v2 import Resize

logger = logging.getLogger(__name__)

MEMORY_LIMIT = 2 * 2**30  # bytes


class TrainingImagesInMemory(Callback):
    """Read the training images once before a fit, and train from memory; the weights are the same as from files.

    The datamodule resizes images to the size of the model as it reads them. They are read in every epoch as usual if
    they would differ next time (augmentations), are drawn unevenly, are not resized to one size, or do not fit into
    2 GiB. After the fit the datamodule is as it was.

    Example:
        >>> from lightning import Trainer
        >>> trainer = Trainer(callbacks=[TrainingImagesInMemory()], logger=False, accelerator="cpu")
    """

    def __init__(self) -> None:
        self._datamodule: AnomalibDataModule | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the images, and put a data loader of them in the place of the datamodule's."""
        del pl_module
        datamodule = getattr(trainer, "datamodule", None)
        if stage != "fit" or not isinstance(datamodule, AnomalibDataModule):
            return
        loader = datamodule.train_dataloader()
        if not is_plain(loader) or not can_be_kept(loader.dataset):
            return
        items = read(loader.dataset, loader.num_workers, progress_bar=trainer.progress_bar_callback is not None)
        in_memory: DataLoader = DataLoader(
            items,  # type: ignore[arg-type]  # a list is a dataset
            shuffle=True,
            batch_size=loader.batch_size,
            collate_fn=loader.collate_fn,
        )
        datamodule.train_dataloader = lambda: in_memory  # type: ignore[method-assign]
        self._datamodule = datamodule

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """Give the datamodule its own data loader back."""
        del args, kwargs
        if self._datamodule is not None:
            del self._datamodule.train_dataloader  # the instance's attribute: the method of the class shows again
            self._datamodule = None

    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        """Do the same if the fit breaks off."""
        self.teardown(*args, **kwargs)


def is_plain(loader: DataLoader) -> bool:
    """Return whether a data loader gives shuffled batches of one size, as anomalib's do."""
    return type(loader.sampler) is RandomSampler and loader.batch_size is not None and not loader.drop_last


def can_be_kept(dataset: Any) -> bool:
    """Return whether a dataset gives the same images each time, and these fit into the memory set aside."""
    resize = dataset.augmentations if isinstance(dataset, AnomalibDataset) else None
    if not isinstance(resize, Resize) or len(resize.size or ()) != 2:
        return False
    height, width = resize.size
    needed = len(dataset) * 3 * height * width * torch.float32.itemsize
    if needed > MEMORY_LIMIT:
        logger.info("Training images are read in every epoch: resized they take %.1f GiB.", needed / 2**30)
    return needed <= MEMORY_LIMIT


def read(dataset: AnomalibDataset, num_workers: int, *, progress_bar: bool = True) -> list[ImageItem]:
    """Read all items."""
    loader = DataLoader(dataset, batch_size=None, collate_fn=_as_it_is, num_workers=num_workers)  # type: ignore[arg-type]
    reading = track(loader, description="Reading training images", transient=True, disable=not progress_bar)
    # What comes from a worker lies in shared memory, of which there is little: hence the copies.
    return [dataclasses.replace(item, image=item.image.clone(), gt_mask=None) for item in reading]


def _as_it_is(item: ImageItem) -> ImageItem:
    return item
