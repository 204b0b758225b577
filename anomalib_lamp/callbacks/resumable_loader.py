"""A data loader that goes on in the middle of an epoch, with the images that were still to come."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, Dataset, DistributedSampler


class OrderOfEpoch(DistributedSampler):
    """Shuffle a dataset by a seed and the number of the epoch, and leave out what was given before an interruption.

    Several processes share every global batch: together they give the images that one process would give.

    Attributes:
        start: How many images are left out.

    Example:
        >>> order = OrderOfEpoch(range(6), num_replicas=1, rank=0, seed=0)
        >>> list(order)
        [2, 5, 3, 0, 1, 4]
        >>> order.start = 4
        >>> list(order)
        [1, 4]
    """

    start = 0

    def __iter__(self) -> Iterator[int]:
        """Return the indices that are still to come."""
        return islice(super().__iter__(), self.start, None)


class ResumableLoader(DataLoader):
    """Data loader whose state Lightning keeps in checkpoints; a broken iteration is continued by the next one.

    Args:
        dataset: What to load.
        sampler: The order.
        **arguments: Further arguments of :class:`torch.utils.data.DataLoader`; ``batch_size`` is needed.

    Attributes:
        batches_per_epoch: Number of batches after which the next epoch begins.

    Example:
        >>> loader = ResumableLoader(range(6), OrderOfEpoch(range(6), 1, 0, seed=0), batch_size=2)
        >>> batches = iter(loader)
        >>> next(batches), loader.state_dict()
        (tensor([2, 5]), {'epoch': 0, 'batches': 1, 'seed': 0})
        >>> resumed = ResumableLoader(range(6), OrderOfEpoch(range(6), 1, 0, seed=0), batch_size=2)
        >>> resumed.load_state_dict(loader.state_dict())
        >>> list(resumed)
        [tensor([3, 0]), tensor([1, 4])]
    """

    sampler: OrderOfEpoch

    def __init__(self, dataset: Dataset, sampler: OrderOfEpoch, **arguments: Any) -> None:
        super().__init__(dataset, sampler=sampler, **arguments)
        self.batches_per_epoch: int | float = len(self)
        self._epoch = self._given = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches of an epoch that are still to come."""
        if self._given >= self.batches_per_epoch:
            self._epoch, self._given = self._epoch + 1, 0
        self.sampler.set_epoch(self._epoch)  # Lightning's own count goes wrong when a training is resumed twice
        self.sampler.start = self._given * (self.batch_size or 1)
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, how many of its batches were given, and the seed of the order."""
        return {"epoch": self._epoch, "batches": self._given, "seed": self.sampler.seed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where the state was taken."""
        self._epoch, self._given, self.sampler.seed = state["epoch"], state["batches"], state["seed"]
