"""Measure how long an inspection takes here, from the file to the result, for every exported format.

Formats take turns at ten photographs each. Differences are those of scores and anomaly maps from the first format.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from anomalib_lamp_runtime.export_folder import ExportFolder
from anomalib_lamp_runtime.inspection import Inspection
from anomalib_lamp_runtime.inspector import Inspector
from anomalib_lamp_runtime.photographs import photographs_in

WARM_UP = 3
TURN = 10


@dataclass(frozen=True)
class Row:
    """What was measured of a format.

    Attributes:
        backend: The format.
        megabytes: Size of its files, in 10^6 bytes.
        p50: Median time of an inspection in ms, decoding included.
        p95: Time that 95 % of the inspections keep.
        p99: Time that 99 % keep.
        score_difference: Largest difference of a score from that of the first format.
        map_difference: The same of anomaly maps.
    """

    backend: str
    megabytes: float
    p50: float
    p95: float
    p99: float
    score_difference: float
    map_difference: float


def measure_formats(model: Path, photographs: Sequence[Path], count: int, threads: int | None = None) -> list[Row]:
    """Return a row for every format of an exported model.

    Args:
        model: Folder of the exported model.
        photographs: Files, each of which is inspected about equally often.
        count: Number of inspections with each format.
        threads: Number of threads; ``None`` for all cores.
    """
    formats = ExportFolder(model).files
    inspectors = {name: Inspector(model, backend=name, threads=threads) for name in formats}
    megabytes = {name: sum((model / file).stat().st_size for file in formats[name]) / 1e6 for name in formats}
    return measure(inspectors, megabytes, list(islice(cycle(photographs), count)))


def measure(
    inspectors: Mapping[str, Callable[[Path], Inspection]], megabytes: Mapping[str, float], photographs: Sequence[Path]
) -> list[Row]:
    """Return a row for every inspector.

    They take turns at ten photographs each: what an inspector's threads do after an inspection costs the next one time.

    Args:
        inspectors: Inspectors by name.
        megabytes: Sizes of their files.
        photographs: What they inspect.
    """
    times: dict[str, list[float]] = {name: [] for name in inspectors}
    differences = {name: np.zeros(2) for name in inspectors}
    for inspector in inspectors.values():
        for photograph in photographs[:WARM_UP]:
            inspector(photograph)
    for start in range(0, len(photographs), TURN):
        expected: list[Inspection] = []
        for name, inspector in inspectors.items():
            results = []
            for photograph in photographs[start : start + TURN]:
                began = time.perf_counter()
                results.append(inspector(photograph))
                times[name].append(1000 * (time.perf_counter() - began))
            expected = expected or results
            found = [_difference(*pair) for pair in zip(results, expected, strict=True)]
            differences[name] = np.maximum(differences[name], np.max(found, axis=0))
    return [
        Row(name, megabytes[name], *np.percentile(times[name], [50, 95, 99]).tolist(), *differences[name].tolist())
        for name in inspectors
    ]


def _difference(one: Inspection, other: Inspection) -> tuple[float, float]:
    return abs(one.score - other.score), float(np.abs(one.anomaly_map - other.anomaly_map).max())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("photographs", type=Path, metavar="FILE|DIR", help="photographs as they come on the line")
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="folder of the exported model")
    parser.add_argument("--threads", type=int, help="number of threads; default: all cores")
    parser.add_argument("--count", type=int, default=200, help="inspections with each format; default: 200")


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    rows = measure_formats(arguments.model, photographs_in(arguments.photographs), arguments.count, arguments.threads)
    print(f"{'format':10}{'MB':>8}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'score diff':>12}{'map diff':>12}")
    for row in rows:
        print(
            f"{row.backend:10}{row.megabytes:8.1f}{row.p50:9.1f}{row.p95:9.1f}{row.p99:9.1f}"
            f"{row.score_difference:12.1e}{row.map_difference:12.1e}"
        )
    return 0
