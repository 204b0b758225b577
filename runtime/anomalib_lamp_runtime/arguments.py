"""Arguments of the subcommands that inspect photographs."""

import argparse
from pathlib import Path

from anomalib_lamp_runtime.backends import BACKENDS
from anomalib_lamp_runtime.drift import RATE, WINDOW
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


def add_drift_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the warning of drift."""
    parser.add_argument(
        "--drift-window",
        type=count,
        default=WINDOW,
        metavar="N",
        help=f"parts that are compared with the normal images of the export at once; default: {WINDOW}",
    )
    parser.add_argument(
        "--drift-rate",
        type=share,
        default=RATE,
        metavar="RATE",
        help=f"largest probability of a false warning for N parts; default: {RATE}",
    )


def threshold(text: str) -> float:
    """Return a threshold from the command line.

    Example:
        >>> threshold("0.7")
        0.7
    """
    value = float(text)
    _require(0 <= value <= 1, "a number in [0, 1]", text)
    return value


def count(text: str) -> int:
    """Return a whole number of at least 1 from the command line.

    Example:
        >>> count("3")
        3
    """
    value = int(text)
    _require(value >= 1, "at least 1", text)
    return value


def share(text: str) -> float:
    """Return a number between 0 and 1 from the command line.

    Example:
        >>> share("0.01")
        0.01
    """
    value = float(text)
    _require(0 < value < 1, "a number between 0 and 1", text)
    return value


def seconds(text: str) -> float:
    """Return a time of at least 0 from the command line.

    Example:
        >>> seconds("1.5")
        1.5
    """
    value = float(text)
    _require(0 <= value < float("inf"), "seconds of at least 0", text)
    return value


def _require(right: bool, expected: str, text: str) -> None:
    if not right:
        msg = f"expected {expected}, got {text}"
        raise argparse.ArgumentTypeError(msg)
