"""Check that an exported model predicts here what it predicted before it was exported.

The photographs of its golden samples are inspected with the threshold of the training. The exit code is 1 if a score
differs by more than 0.001 or a label differs.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anomalib_lamp_runtime.backends import BACKENDS
from anomalib_lamp_runtime.inspector import Inspector

SCORE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Comparison:
    """A golden sample beside what was predicted for it here.

    Attributes:
        name: Name of the photograph.
        expected_score: Normalised score before the export.
        score: Normalised score here.
        same_label: Whether the labels are equal.
        map_difference: Largest difference of the anomaly maps.
    """

    name: str
    expected_score: float
    score: float
    same_label: bool
    map_difference: float

    @property
    def close(self) -> bool:
        """Return whether the score is what is expected."""
        return abs(self.score - self.expected_score) <= SCORE_TOLERANCE

    @property
    def equal(self) -> bool:
        """Return whether score and label are what is expected."""
        return self.same_label and self.close

    def __str__(self) -> str:
        label = "same label" if self.same_label else "OTHER LABEL"
        return (
            f"{self.name}: score {self.score:.5f}, expected {self.expected_score:.5f}, {label}, "
            f"map differs by {self.map_difference:.5f} at most"
        )


def compare_golden_samples(inspector: Inspector) -> Iterator[Comparison]:
    """Return the golden samples of a model's folder beside what an inspector predicts for them.

    Args:
        inspector: Inspector with the threshold of the training.

    Raises:
        ExportError: If there are no golden samples.
        InspectionError: If a photograph of them cannot be read.
    """
    for sample in inspector.export.golden_samples():
        inspection = inspector(sample.photograph)
        yield Comparison(
            name=sample.photograph.name,
            expected_score=sample.score,
            score=inspection.score,
            same_label=inspection.anomalous == sample.anomalous,
            map_difference=float(np.abs(inspection.anomaly_map - sample.anomaly_map).max()),
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("model", type=Path, metavar="DIR", help="folder of the exported model")
    parser.add_argument("--backend", choices=list(BACKENDS), default="onnx", help="default: onnx")


def run(arguments: argparse.Namespace) -> int:
    """Print a line for every golden sample."""
    comparisons = list(compare_golden_samples(Inspector(arguments.model, backend=arguments.backend)))
    for comparison in comparisons:
        print(f"{'ok' if comparison.equal else 'DIFFERS'}: {comparison}")
    return int(not all(comparison.equal for comparison in comparisons))
