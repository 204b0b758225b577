"""Connected regions of an anomaly map, as boxes in pixels of the photograph."""

from dataclasses import dataclass

import numpy as np

MAX_REGIONS = 100  # of one photograph: a map of noise has thousands


@dataclass(frozen=True)
class Region:
    """Box around pixels that are connected and anomalous.

    Attributes:
        left: First column, in pixels of the photograph.
        top: First row.
        right: Column after the last one.
        bottom: Row after the last one.
        score: Highest value of the anomaly map in the region, in [0, 1].
    """

    left: int
    top: int
    right: int
    bottom: int
    score: float


def find_regions(anomaly_map: np.ndarray, threshold: float, size: tuple[int, int]) -> tuple[Region, ...]:
    """Return the regions where a map exceeds a threshold, those of the highest scores first, 100 at most.

    Pixels that touch at a side or a corner are connected.

    Args:
        anomaly_map: Map (h, w) in [0, 1].
        threshold: Threshold of its values.
        size: Width and height of the photograph in pixels.

    Example:
        >>> anomaly_map = np.zeros((4, 4), np.float32)
        >>> anomaly_map[1, 1:3] = 0.75
        >>> find_regions(anomaly_map, 0.5, size=(40, 80))
        (Region(left=10, top=20, right=30, bottom=40, score=0.75),)
    """
    height, width = anomaly_map.shape
    across, down = size[0] / width, size[1] / height
    regions = [
        Region(
            left=int(left * across),
            top=int(top * down),
            right=int(np.ceil(right * across)),
            bottom=int(np.ceil(bottom * down)),
            score=score,
        )
        for left, top, right, bottom, score in _boxes(anomaly_map, threshold)
    ]
    return tuple(sorted(regions, key=lambda region: -region.score)[:MAX_REGIONS])


def _boxes(anomaly_map: np.ndarray, threshold: float) -> list[tuple[int, int, int, int, float]]:
    """Return left, top, right, bottom and highest value of every region, in pixels of the map.

    The runs of each row are joined with those that they touch in the row above.
    """
    boxes: list[tuple[int, int, int, int, float]] = []
    parents: list[int] = []

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    above: list[int] = []
    for row, runs in enumerate(_runs(anomaly_map > threshold)):
        here = []
        for left, right in runs:
            index = len(boxes)
            boxes.append((left, row, right, row + 1, float(anomaly_map[row, left:right].max())))
            parents.append(index)
            for other in above:
                if boxes[other][0] <= right and left <= boxes[other][2]:
                    parents[root(index)] = root(other)
            here.append(index)
        above = here
    merged: dict[int, tuple[int, int, int, int, float]] = {}
    for index, box in enumerate(boxes):
        other_box = merged.get(root(index), box)
        lows = map(min, box[:2], other_box[:2])
        highs = map(max, box[2:], other_box[2:])
        merged[root(index)] = (*lows, *highs)  # type: ignore[assignment]
    return list(merged.values())


def _runs(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """Return first column and column after the last of every run of true values, row by row."""
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    runs: list[list[tuple[int, int]]] = [[] for _ in mask]
    starts, ends = np.argwhere(steps == 1), np.argwhere(steps == -1)
    for (row, left), (_, right) in zip(starts.tolist(), ends.tolist(), strict=True):
        runs[row].append((left, right))
    return runs
