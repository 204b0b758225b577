"""Arguments of the subcommands that inspect photographs."""

import argparse
from pathlib import Path

from anomalib_lamp_runtime.backends import BACKENDS
from anomalib_lamp_runtime.inspector import Inspector


def add_inspector_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which inspector is meant."""
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="folder of the exported model")
    parser.add_argument("--threshold", type=threshold, help="normalised score above which a part is anomalous")
    parser.add_argument("--backend", choices=list(BACKENDS), default="onnx", help="default: onnx")
    parser.add_argument("--threads", type=int, help="number of threads; default: all cores")


def make_inspector(arguments: argparse.Namespace) -> Inspector:
    """Return the inspector that was asked for."""
    return Inspector(arguments.model, arguments.threshold, arguments.backend, arguments.threads)


def threshold(text: str) -> float:
    """Return a threshold from the command line.

    Example:
        >>> threshold("0.7")
        0.7
    """
    value = float(text)
    if not 0 <= value <= 1:
        msg = f"expected a number in [0, 1], got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value
