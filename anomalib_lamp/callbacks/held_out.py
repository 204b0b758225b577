"""Training images that are not learnt, for models that check themselves on normal images."""

from collections.abc import Iterator, Sequence, Sized
from typing import Any

import torch
from anomalib.data import ImageBatch
from anomalib.pre_processing import PreProcessor
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader, Subset


class HeldOutImages(Callback):
    """Hold some training images out from learning, and read them when a training starts.

    The test images are not touched, and neither are the validation images, which anomalib takes from them by default.
    Held-out images are recognised in batches by their paths. They are forgotten when the fit ends, so that they are not
    exported with the model.

    Args:
        fraction: Fraction of the training images that is held out, in (0, 1).
        at_least: Fewer are not held out; if that were more than half of the images, none are.
        at_most: More are not held out; 0 holds none out.
        seed: Seed of the choice; ``None`` always chooses the same.
        enough: So many are held out even if the fraction gives fewer, unless they are more than half of the images;
            ``None`` for as many as ``at_least``.

    Attributes:
        images: The held-out images, (N, 3, H, W) in [0, 1], on the model's device; N is 0 outside of a training and if
            there are too few training images.
        learnt: Indices of the other training images.

    Example:
        >>> held_out = HeldOutImages(fraction=0.125, at_least=4, at_most=100)
        >>> learnt, chosen = held_out.split(count=40)
        >>> len(learnt), len(chosen)
        (35, 5)
    """

    def __init__(
        self, fraction: float, at_least: int, at_most: int, seed: int | None = None, enough: int | None = None
    ) -> None:
        self.fraction = fraction
        self.at_least = at_least
        self.at_most = at_most
        self.enough = at_least if enough is None else enough
        self.seed = seed
        self._forget()

    def _forget(self) -> None:
        self.images = torch.empty(0)
        self.learnt: list[int] = []
        self._paths: frozenset[str] = frozenset()

    def split(self, count: int) -> tuple[list[int], list[int]]:
        """Return the indices of the images to learn and of those held out, of so many images."""
        held_out = min(max(round(self.fraction * count), self.enough), count // 2, self.at_most)
        if held_out < self.at_least:
            held_out = 0
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed or 0)).tolist()
        return sorted(order[held_out:]), sorted(order[:held_out])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the images and read them."""
        self.learnt, chosen = self.split(number_of_images(trainer.train_dataloader))
        batches = list(training_batches(pl_module, chosen)) if chosen else []
        if batches:
            self._paths = frozenset(path for batch in batches for path in image_paths(batch))
            self.images = torch.cat([batch.image for batch in batches])  # type: ignore[misc]

    def samples(self, pl_module: LightningModule, at_most: int) -> tuple[Tensor, Tensor]:
        """Return at most so many held-out images, and as many learnt ones, evenly spread; none if none are held out."""
        held_out = self.images[:at_most]
        count = len(held_out)
        if not count:
            return held_out, held_out
        chosen = [self.learnt[index] for index in evenly_spread(len(self.learnt), count)]
        return held_out, torch.cat([batch.image for batch in training_batches(pl_module, chosen)])  # type: ignore[misc]

    def to_learn(self, batch: ImageBatch) -> Tensor:
        """Return the images of a batch that are not held out."""
        images: Tensor = batch.image  # type: ignore[assignment]
        if not self._paths:
            return images
        return images[[path not in self._paths for path in image_paths(batch)]]

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """Forget the images."""
        del args, kwargs
        self._forget()

    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        """Forget the images if the training breaks off."""
        self.teardown(*args, **kwargs)


def evenly_spread(length: int, count: int) -> list[int]:
    """Return so many indices, evenly spread over a sequence of a length.

    Example:
        >>> evenly_spread(length=10, count=4)
        [0, 2, 5, 7]
    """
    return [number * length // count for number in range(count)]


def number_of_images(loader: Any) -> int:
    """Return how many images a training data loader reads.

    Raises:
        TypeError: If it is not a single data loader over a dataset with a length.
    """
    dataset = getattr(loader, "dataset", None)
    if not isinstance(loader, DataLoader) or not isinstance(dataset, Sized):
        what = type(loader).__name__ if dataset is None else f"one over {type(dataset).__name__}, which has no length"
        msg = (
            f"Expected a single training data loader over a dataset with a length, got {what}: images are held out by "
            "their indices. Give an anomalib datamodule, or one DataLoader of a map-style dataset."
        )
        raise TypeError(msg)
    return len(dataset)


def training_batches(pl_module: LightningModule, indices: Sequence[int]) -> Iterator[ImageBatch]:
    """Read training images in the order of their indices, pre-processed as for training, onto the model's device."""
    loader: DataLoader = pl_module.trainer.train_dataloader  # type: ignore[assignment]
    pre_processor = pl_module.pre_processor
    for batch in DataLoader(
        Subset(loader.dataset, indices),
        batch_size=loader.batch_size,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
    ):
        batch.image = batch.image.to(pl_module.device)
        if isinstance(pre_processor, PreProcessor) and pre_processor.transform:
            batch.image = pre_processor.transform(batch.image)
        yield batch


def image_paths(batch: ImageBatch) -> list[str]:
    """Return the paths of a batch's images, by which held-out images are recognised."""
    if batch.image_path is None:
        msg = "Expected training images with paths, by which held-out ones are known; anomalib's datasets give them."
        raise ValueError(msg)
    return batch.image_path


def share_of_batch(pl_module: LightningModule, count: int) -> float:
    """Return this process's number of images to learn, relative to the mean over processes; 1 in a single process.

    Processes average their gradients. Where held-out images leave fewer to one of them, its loss must count less for
    the sum to be that of one process with all images. All processes have to call this in every step.
    """
    if pl_module.trainer.world_size == 1:
        return 1.0
    mean = pl_module.trainer.strategy.reduce(torch.tensor(float(count), device=pl_module.device), reduce_op="mean")
    return count / max(float(mean), 1.0 / pl_module.trainer.world_size)


def zero_loss(pl_module: LightningModule) -> Tensor:
    """Return a loss of 0 for a batch without images to learn, with gradients of 0 for all trained parameters.

    Gradients are needed: other processes wait for them, and the scaling of losses in float16 asks for them.
    """
    trained = [
        parameter
        for optimizer in pl_module.trainer.optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    if not trained:
        return torch.zeros((), device=pl_module.device, requires_grad=True)
    return torch.stack([parameter.sum() for parameter in trained]).sum() * 0
