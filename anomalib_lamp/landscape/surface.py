"""Losses along a line or on a plane of weights, in one file that a stopped run goes on with."""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from rich.progress import track
from torch import Tensor

from anomalib_lamp.compare.records import write_durably

from .closure import Closure, losses_at
from .directions import Weights

SECONDS_BETWEEN_SAVES = 10
SAME_LOSS = 1e-3  # relative difference at the centre that other threads or another machine may make


@dataclass
class Surface:
    """Losses at weights ``centre + a * first direction (+ b * second direction)``.

    Attributes:
        axes: The values of a, and of b for a plane.
        values: Loss by ruler, (a,) or (a, b); NaN where it is not finite.
        centre: Loss at the centre by ruler.
        metadata: What else is known about it, plain values.
    """

    axes: tuple[np.ndarray, ...]
    values: dict[str, np.ndarray]
    centre: dict[str, float]
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def gaps(self) -> dict[str, int]:
        """Number of points without a finite loss, by ruler."""
        return {name: int(np.isnan(values).sum()) for name, values in self.values.items()}

    def explained(self, ruler: str, by: str) -> float | None:
        """Return R², how much of a ruler's variance on this surface a straight line of another ruler explains.

        Args:
            ruler: The ruler to explain.
            by: The ruler that it is regressed on.

        Returns:
            At most 1; ``None`` if either is constant, or has fewer than three common points.
        """
        x, y = self.values[by].ravel(), self.values[ruler].ravel()
        known = np.isfinite(x) & np.isfinite(y)
        if known.sum() < 3 or np.ptp(x[known]) == 0 or np.ptp(y[known]) == 0:
            return None
        return float(np.corrcoef(x[known], y[known])[0, 1] ** 2)


def grid(radius: float = 1.0, steps: int = 51) -> np.ndarray:
    """Return evenly spaced distances from ``-radius`` to ``radius``, with 0 in the middle.

    Raises:
        ValueError: If the radius is not above 0 and finite, or the steps are not an odd number of 3 or more.

    Example:
        >>> grid(1.0, 5).tolist()
        [-1.0, -0.5, 0.0, 0.5, 1.0]
    """
    if not 0 < radius < math.inf:
        msg = f"Expected a radius above 0, got {radius}. Take 1 to move each filter by its own length."
        raise ValueError(msg)
    if steps < 3 or steps % 2 == 0:
        msg = f"Expected an odd number of 3 or more steps, so that 0 is one of them, got {steps}. Take 51."
        raise ValueError(msg)
    half = np.linspace(0, radius, steps // 2 + 1)
    return np.concatenate([-half[:0:-1], half])


def surface(
    closure: Closure,
    centre: Mapping[str, Tensor],
    directions: Sequence[Mapping[str, Tensor]],
    axes: Sequence[ArrayLike] | None = None,
    file: Path | str | None = None,
    metadata: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Surface:
    """Return the losses along one direction, or on the plane of two.

    Args:
        closure: Takes weights by name and returns scalars by ruler; see
            :func:`~anomalib_lamp.landscape.closure_of`. A loss that is not finite is a gap.
        centre: The weights in the middle; see :func:`~anomalib_lamp.landscape.weights_of`.
        directions: One or two directions, by the names of the weights that move; see
            :func:`~anomalib_lamp.landscape.random_directions`.
        axes: For each direction, how far to go along it; :func:`grid` if not given, 51 values from -1 to 1.
        file: Where to keep the surface, as JSON. What a stopped run left there is taken over, if it is of the same
            weights, directions and axes, and the loss at the centre is the same.
        metadata: What to keep with it, plain values.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If there are not one or two directions with an axis each, a direction moves weights that there are
            not, a loss is not a scalar, or the file is of another surface.
        TypeError: If the closure does not return scalars by name.
        OSError: If the file cannot be read or written.

    Example:
        >>> centre, direction = {"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}
        >>> result = surface(lambda weights: {"square": weights["w"].square().sum()}, centre, [direction], [[-1, 0, 1]])
        >>> result.values["square"].tolist()
        [1.0, 1.0, 9.0]
    """
    chosen = [grid() for _ in directions] if axes is None else [np.asarray(axis, dtype=float) for axis in axes]
    _check(centre, directions, chosen)
    shape = tuple(map(len, chosen))
    at_centre = losses_at(closure, centre)
    head = {
        "fingerprint": _fingerprint(centre, directions, chosen),
        "axes": [axis.tolist() for axis in chosen],
        "centre": {name: _plain(value) for name, value in at_centre.items()},
    }
    path = None if file is None else Path(file)
    known = _read(path, head) if path is not None else {name: [] for name in at_centre}
    metadata = dict(metadata or {})

    def save() -> None:
        if path is not None:
            values = {name: list(map(_plain, found)) for name, found in known.items()}
            write_durably(path, json.dumps({**head, "metadata": metadata, "values": values}) + "\n")

    done = len(next(iter(known.values())))
    points = _points(centre, directions, chosen, done)
    saved = time.monotonic()
    total = math.prod(shape)
    try:
        for weights in track(points, "Surface", total, completed=done, transient=True, disable=not progress):
            for name, value in losses_at(closure, weights).items():
                known[name].append(value)
            if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                save()
                saved = time.monotonic()
    finally:
        save()
    values = {name: np.array(found).reshape(shape) for name, found in known.items()}
    return Surface(tuple(chosen), values, at_centre, metadata)


def read_surface(file: Path | str) -> Surface:
    """Return a surface from its file; points that a stopped run has not reached are NaN.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it holds no surface.
    """
    content = _load(Path(file))
    axes = tuple(np.array(axis) for axis in content["axes"])
    shape = tuple(map(len, axes))
    values = {}
    for name, found in content["values"].items():
        values[name] = np.full(math.prod(shape), np.nan)
        values[name][: len(found)] = list(map(_number, found))
    centre = {name: _number(value) for name, value in content["centre"].items()}
    return Surface(axes, {name: flat.reshape(shape) for name, flat in values.items()}, centre, content["metadata"])


def _check(centre: Mapping[str, Tensor], directions: Sequence[Mapping[str, Tensor]], axes: list[np.ndarray]) -> None:
    if len(directions) not in (1, 2) or len(axes) != len(directions):
        msg = f"Expected one or two directions with an axis each, got {len(directions)} and {len(axes)} axes."
        raise ValueError(msg)
    for axis in axes:
        if axis.ndim != 1 or not axis.size or not np.isfinite(axis).all():
            msg = f"Expected an axis of finite distances, got {axis}. Make one with anomalib_lamp.landscape.grid."
            raise ValueError(msg)
    for direction in directions:
        for name, step in direction.items():
            if name not in centre or centre[name].shape != step.shape:
                there = tuple(centre[name].shape) if name in centre else "none"
                msg = (
                    f"Expected directions that move the weights of the centre, got {name} of shape "
                    f"{tuple(step.shape)}, where the centre has {there}. Take both from the same module."
                )
                raise ValueError(msg)


def _points(
    centre: Mapping[str, Tensor], directions: Sequence[Mapping[str, Tensor]], axes: Sequence[np.ndarray], done: int
) -> Iterator[Weights]:
    """Yield the weights of all points but the first ``done`` ones, row by row."""
    row, start = None, dict(centre)
    for number, distances in enumerate(product(*axes)):
        if number < done:
            continue
        if len(directions) == 2 and distances[0] != row:
            row, start = distances[0], moved(centre, directions[0], distances[0])
        yield moved(start, directions[-1], distances[-1])


def moved(weights: Mapping[str, Tensor], direction: Mapping[str, Tensor], distance: float) -> Weights:
    """Return weights moved along a direction."""
    return {
        name: torch.add(weight, direction[name], alpha=distance) if name in direction else weight
        for name, weight in weights.items()
    }


def _fingerprint(
    centre: Mapping[str, Tensor], directions: Sequence[Mapping[str, Tensor]], axes: Sequence[np.ndarray]
) -> str:
    digest = hashlib.sha256()
    for axis in axes:
        digest.update(axis.tobytes())
    for weights in (centre, *directions):
        for name, weight in weights.items():
            digest.update(name.encode())
            digest.update(weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _read(path: Path, head: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return the losses that a stopped run left in a file; empty lists if there is none."""
    if not path.exists():
        return {name: [] for name in head["centre"]}
    content = _load(path)
    same = content["fingerprint"] == head["fingerprint"] and content["centre"].keys() == head["centre"].keys()
    if not same or any(_differ(content["centre"][name], value) for name, value in head["centre"].items()):
        msg = (
            f"Expected {path} to be of the same weights, directions, axes and losses, got another surface. Delete it, "
            "or choose another file."
        )
        raise ValueError(msg)
    return {name: list(map(_number, values)) for name, values in content["values"].items()}


def _differ(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is not other
    return abs(one - other) > SAME_LOSS * max(abs(one), abs(other))


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if {"fingerprint", "axes", "centre", "metadata", "values"} <= content.keys():
            return content
    except (AttributeError, ValueError):
        pass
    msg = f"Expected a surface that anomalib_lamp.landscape wrote, got {path}. Choose another file."
    raise ValueError(msg)


def _plain(value: float) -> float | None:
    """Return a loss as JSON has it: ``null`` for a gap."""
    return None if math.isnan(value) else value


def _number(value: float | None) -> float:
    return math.nan if value is None else value
