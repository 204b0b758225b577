"""Drift: whether the last parts still look and score like the normal images that the model was exported with."""

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

QUANTITIES = ("score", "brightness", "sharpness")
WINDOW = 100  # parts in a window
RATE = 0.001  # false alarms per window


@dataclass(frozen=True)
class Shift:
    """A quantity that left its reference distribution.

    Attributes:
        quantity: ``score``, ``brightness`` or ``sharpness``.
        distance: Largest distance of the two empirical distribution functions, in [0, 1].
        limit: Smallest distance that is reported.
        reference_median: Median on the normal images of the export.
        window_median: Median on the parts of the window.
    """

    quantity: str
    distance: float
    limit: float
    reference_median: float
    window_median: float

    def as_dict(self) -> dict[str, str | float]:
        """Return the shift as it stands in a line of results and in an answer of the service."""
        return {name: value if isinstance(value, str) else round(value, 6) for name, value in vars(self).items()}

    def __str__(self) -> str:
        return (
            f"{self.quantity} has moved: its median is {self.window_median:.4g}, {self.reference_median:.4g} on the"
            f" normal images of the export (distance {self.distance:.2f}, limit {self.limit:.2f})"
        )


class Drift:
    """Compares windows of parts, one after the other, with the reference values of the export.

    Each window is compared with the two-sample test of Kolmogorov and Smirnov, each quantity at the level
    ``rate / number of quantities`` (Bonferroni), with exact critical values. If the parts of a window and the reference
    are independent draws from one distribution, a window raises an alarm with a probability of at most ``rate``.
    That probability is taken over references as well: the rate of one line with one reference scatters around it.
    Parts that follow one another in groups (one batch is brighter, the next darker) are no independent draws.

    Args:
        reference: Values of each quantity on normal images, in any order.
        window: Parts in a window. Windows do not overlap.
        rate: Largest probability of a false alarm in a window, over all quantities.

    Raises:
        ValueError: If there is no reference, one has a value that is no finite number or too few values for any alarm,
            or an argument is out of its range.

    Example:
        >>> drift = Drift({"score": [0.1, 0.12, 0.13, 0.15, 0.16, 0.18, 0.2, 0.21]}, window=8, rate=0.01)
        >>> [drift.add({"score": 0.3 + part / 100}) for part in range(7)]
        [None, None, None, None, None, None, None]
        >>> [shift.quantity for shift in drift.add({"score": 0.4})]
        ['score']

    Source: J. L. Hodges, The significance probability of the Smirnov two-sample test, Arkiv för Matematik 3 (1958).
    """

    def __init__(self, reference: Mapping[str, Sequence[float]], window: int = WINDOW, rate: float = RATE) -> None:
        if window < 1 or not 0 < rate < 1:
            msg = f"Expected a window of at least 1 part and a rate between 0 and 1, got {window} and {rate}."
            raise ValueError(msg)
        if not reference:
            msg = "Expected reference values of at least one quantity, got none: export the model again."
            raise ValueError(msg)
        self.window, self.rate = window, rate
        self._reference = {name: _sorted_values(name, values) for name, values in reference.items()}
        level = rate / len(reference)
        self._limits = {name: critical_distance(len(values), window, level) for name, values in self._reference.items()}
        self._parts: list[dict[str, float]] = []
        self.shifts: tuple[Shift, ...] = ()  # of the last full window
        self.windows = 0

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of what is watched."""
        return tuple(self._reference)

    def add(self, values: Mapping[str, float]) -> tuple[Shift, ...] | None:
        """Add a part.

        Args:
            values: Its value of each quantity; others are ignored.

        Returns:
            ``None`` while the window is not full; else what has left its reference distribution, often nothing.
        """
        self._parts.append({name: float(values[name]) for name in self._reference})
        if len(self._parts) < self.window:
            return None
        self.shifts, self._parts = tuple(self._compare(self._parts)), []
        self.windows += 1
        return self.shifts

    def _compare(self, parts: Sequence[Mapping[str, float]]) -> Iterable[Shift]:
        for name, reference in self._reference.items():
            values = np.sort([part[name] for part in parts])
            distance, limit = ks_distance(reference, values), self._limits[name]
            if distance >= limit - 1e-12:  # both are fractions that were rounded
                yield Shift(name, distance, limit, float(np.median(reference)), float(np.median(values)))


def _sorted_values(name: str, values: Sequence[float]) -> np.ndarray:
    reference = np.sort(np.asarray(values, dtype=float))
    if reference.ndim != 1 or not np.isfinite(reference).all():
        msg = f"Expected finite numbers as reference of {name}: export the model again."
        raise ValueError(msg)
    return reference


def ks_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the largest distance of the empirical distribution functions of two sorted samples, in [0, 1].

    Example:
        >>> ks_distance(np.array([1.0, 2.0]), np.array([1.5, 2.5]))
        0.5
    """
    points = np.concatenate([first, second])
    functions = (np.searchsorted(sample, points, side="right") / len(sample) for sample in (first, second))
    return float(np.abs(np.subtract(*functions)).max())


@lru_cache  # the quantities have as many values each
def critical_distance(n: int, m: int, level: float) -> float:
    """Return the smallest distance that two samples of one distribution reach with at most a given probability.

    Args:
        n: Values in the first sample.
        m: Values in the second sample.
        level: The probability, between 0 and 1.

    Raises:
        ValueError: If the samples are so small that even the distance 1 is more probable.

    Example:
        >>> critical_distance(100, 50, 0.05)
        0.24
    """
    step = math.gcd(n, m)  # distances are multiples of step / (n * m)
    distances = range(step, n * m + 1, step)
    place = bisect.bisect_left(distances, True, key=lambda distance: ks_probability(n, m, distance) <= level)
    if place == len(distances):
        msg = (
            f"Expected samples large enough for an alarm at level {level:.2g}, got {n} reference values and windows of"
            f" {m} parts: export with more normal images, or raise the window or the rate."
        )
        raise ValueError(msg)
    return distances[place] / (n * m)


def ks_probability(n: int, m: int, distance: int) -> float:
    r"""Return the probability that the distance of two samples of one continuous distribution reaches a value.

    A merged sample is a path from (0, 0) to (n, m); every path has the same probability. With :math:`p_{ij}` the share
    of paths to (i, j) that stay where :math:`|i m - j n| < distance`,

    .. math:: p_{ij} = \frac{i\, p_{i-1,j} + j\, p_{i,j-1}}{i + j}

    and the probability is :math:`1 - p_{nm}`. Ties in the samples only make it smaller.

    Args:
        n: Values in the first sample.
        m: Values in the second sample.
        distance: The distance times ``n * m``.
    """
    j = np.arange(m + 1)
    inside = (j == 0).astype(float)
    for total in range(1, n + m + 1):
        i = total - j
        from_left = np.concatenate([[0.0], inside[:-1]])
        inside = (i * inside + j * from_left) / total
        inside[(i < 0) | (i > n) | (np.abs(i * m - j * n) >= distance)] = 0
    return 1 - float(inside[m])
