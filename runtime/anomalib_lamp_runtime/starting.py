"""What commands that run for long do first: they refuse a model that predicts here what it should not."""

import argparse
import sys

from anomalib_lamp_runtime.arguments import make_inspector
from anomalib_lamp_runtime.commands.check import compare_golden_samples
from anomalib_lamp_runtime.drift import QUANTITIES, Drift
from anomalib_lamp_runtime.errors import ExportError
from anomalib_lamp_runtime.inspector import Inspector


def make_checked_inspector(arguments: argparse.Namespace) -> Inspector:
    """Return the inspector that was asked for, after it inspected the golden samples.

    Raises:
        ExportError: If a score is not what was predicted before the export, or, with the threshold of the training, a
            label is not.
    """
    inspector = make_inspector(arguments)
    for comparison in compare_golden_samples(inspector):
        if not comparison.close or (arguments.threshold is None and not comparison.same_label):
            msg = (
                f"Expected the model to predict what it predicted before the export, got {comparison}. Compare the"
                " versions in metadata.json with those installed here, or copy the whole folder again."
            )
            raise ExportError(msg)
    return inspector


def make_drift(inspector: Inspector, arguments: argparse.Namespace) -> Drift | None:
    """Return what watches for drift; ``None``, and a message, if the export has not enough reference values for it."""
    reference = inspector.export.metadata.get("reference", {})
    try:
        known = {name: reference[name] for name in QUANTITIES if name in reference}
        return Drift(known, arguments.drift_window, arguments.drift_rate)
    except ValueError as error:
        print(f"Drift is not watched. {error}", file=sys.stderr)
        return None
