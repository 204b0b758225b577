"""Where the images of a training come from: from memory as far as they fit, in an order that can be taken up again."""

import dataclasses
import logging
from typing import Any

import torch
from anomalib.data import AnomalibDataModule, ImageItem
from anomalib.data.datasets.base.image import AnomalibDataset
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.progress import track
from torch.utils.data import DataLoader, Dataset, RandomSampler, Subset
from torchvision.transforms.v2 import Resize
from torchvision.tv_tensors import Image

from .repeatable_steps import given_or_drawn
from .resumable_loader import OrderOfEpoch, ResumableLoader

logger = logging.getLogger(__name__)

MEMORY_LIMIT = 2 * 2**30  # bytes


class TrainingImages(Callback):
    """Read the training images once before a fit, and train from memory in an order of the seed's.

    Decoding photographs in every epoch takes longer than learning them. The datamodule resizes images to the size of
    the model as it reads them. As many as fit into 2 GiB are kept; the others are read in every epoch as usual, and so
    are images that would differ next time (augmentations) or are not resized to one size. The order of images is a
    function of seed and epoch, the same in one process or several, and a resumed training goes on in the middle of an
    epoch. Data loaders that draw images unevenly are left as they are. After the fit the datamodule is as it was.

    Args:
        seed: Seed of the order; ``None`` draws one from torch's global state.

    Example:
        >>> from lightning import Trainer
        >>> trainer = Trainer(callbacks=[TrainingImages(seed=0)], logger=False, accelerator="cpu")
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed
        self._datamodule: AnomalibDataModule | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the images, and put a data loader of them in the place of the datamodule's."""
        del pl_module
        datamodule = getattr(trainer, "datamodule", None)
        if stage != "fit" or not isinstance(datamodule, AnomalibDataModule) or trainer.overfit_batches:  # type: ignore[attr-defined]
            return
        loader = datamodule.train_dataloader()
        if not is_plain(loader):
            return
        dataset = loader.dataset
        if is_the_same_each_time(dataset):
            dataset = KeptItems(dataset, loader.num_workers, progress_bar=trainer.progress_bar_callback is not None)
        substitute = ResumableLoader(
            dataset,
            OrderOfEpoch(dataset, trainer.world_size, trainer.global_rank, seed=given_or_drawn(self.seed)),
            batch_size=loader.batch_size,
            collate_fn=loader.collate_fn,
            num_workers=0 if isinstance(dataset, KeptItems) and dataset.complete else loader.num_workers,
        )
        datamodule.train_dataloader = lambda: substitute  # type: ignore[method-assign]
        self._datamodule = datamodule

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the data loader how many batches an epoch has."""
        del pl_module
        if self._datamodule is not None:
            trainer.train_dataloader.batches_per_epoch = trainer.num_training_batches  # type: ignore[union-attr]

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """Give the datamodule its own data loader back."""
        del args, kwargs
        if self._datamodule is not None:
            del self._datamodule.train_dataloader  # the instance's attribute: the method of the class shows again
            self._datamodule = None

    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        """Do the same if the fit breaks off."""
        self.teardown(*args, **kwargs)


class KeptItems(Dataset):
    """Items of a dataset without their masks, as many of them in memory as fit.

    Their images lie in one piece of memory: many pieces of the same size leave gaps that take half as much again.

    Args:
        dataset: A dataset that gives the same items each time, with images of one size.
        num_workers: Processes that read them.
        progress_bar: Whether to show one.
    """

    def __init__(self, dataset: AnomalibDataset, num_workers: int, *, progress_bar: bool = True) -> None:
        self.dataset = dataset
        height, width = dataset.augmentations.size  # type: ignore[union-attr]
        bytes_of_an_image = 3 * height * width * torch.float32.itemsize
        count = min(len(dataset), MEMORY_LIMIT // bytes_of_an_image)
        if count < len(dataset):
            logger.warning(
                "%d of %d training images are kept in memory, and %d are read in every epoch: resized they take %.1f "
                "GiB. A smaller image_size is faster.",
                count,
                len(dataset),
                len(dataset) - count,
                len(dataset) * bytes_of_an_image / 2**30,
            )
        # What comes from a worker lies in shared memory, of which there is little: hence the copies.
        loader: DataLoader = DataLoader(
            Subset(dataset, range(count)),
            batch_size=None,
            collate_fn=_as_it_is,  # type: ignore[arg-type]
            num_workers=num_workers,
        )
        reading = track(
            loader, description="Reading training images", total=count, transient=True, disable=not progress_bar
        )
        memory = torch.empty(count, 3, height, width)
        self._items: list[ImageItem] = []
        for item, image in zip(reading, memory, strict=True):
            self._items.append(dataclasses.replace(item, image=Image(image.copy_(item.image)), gt_mask=None))

    @property
    def complete(self) -> bool:
        """Whether all items are in memory."""
        return len(self._items) == len(self.dataset)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> ImageItem:
        """Return an item."""
        if index < len(self._items):
            return self._items[index]
        return dataclasses.replace(self.dataset[index], gt_mask=None)  # type: ignore[return-value]


def is_plain(loader: DataLoader) -> bool:
    """Return whether a data loader gives shuffled batches of one size, as anomalib's do."""
    return type(loader.sampler) is RandomSampler and loader.batch_size is not None and not loader.drop_last


def is_the_same_each_time(dataset: Any) -> bool:
    """Return whether a dataset gives the same images each time, all of one size."""
    resize = dataset.augmentations if isinstance(dataset, AnomalibDataset) else None
    return isinstance(resize, Resize) and len(resize.size or ()) == 2


def _as_it_is(item: ImageItem) -> ImageItem:
    return item
