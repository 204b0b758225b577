"""A pool of things that only one thread may use at a time; who came first is served first."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class FairPool(Generic[Thing]):
    """Lends its things to threads in the order in which these asked.

    A plain queue gives a thing that was put back to whoever is quicker, so that under load some wait many times longer
    than others.

    Args:
        things: What is lent.

    Example:
        >>> pool = FairPool(["a", "b"])
        >>> with pool.borrow() as first, pool.borrow() as second:
        ...     print(first, second)
        a b
    """

    def __init__(self, things: Iterable[Thing]) -> None:
        self._free = deque(things)
        self._waiting: deque[SimpleQueue[Thing]] = deque()
        self._lock = threading.Lock()

    @contextmanager
    def borrow(self) -> Iterator[Thing]:
        """Wait for a free thing, and give it back at the end."""
        with self._lock:
            mine: SimpleQueue[Thing] = SimpleQueue()
            if self._free:
                mine.put(self._free.popleft())
            else:
                self._waiting.append(mine)
        thing = mine.get()
        try:
            yield thing
        finally:
            with self._lock:
                if self._waiting:
                    self._waiting.popleft().put(thing)
                else:
                    self._free.append(thing)
