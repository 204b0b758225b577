"""Inspect the photographs that arrive in a folder.

Each photograph gets one line of JSON in the results file. A photograph is told from others by its path, size and time
of change; what has a line is not inspected again, also after a restart, so move the results file only together with the
photographs. Half-written files are waited for; one that cannot be read gets a line with its error. It does not begin
unless the model predicts its golden samples as before the export. Ctrl-C or SIGTERM ends it after the photograph at
hand.
"""

import argparse
import sys
from pathlib import Path

from anomalib_lamp_runtime.arguments import (
    add_drift_arguments,
    add_inspector_arguments,
    seconds,
)
from anomalib_lamp_runtime.results import ResultsFile
from anomalib_lamp_runtime.starting import make_checked_inspector, make_drift
from anomalib_lamp_runtime.stopping import Stop
from anomalib_lamp_runtime.watching import Watcher


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("folder", type=Path, help="folder of the photographs; those below it count too")
    add_inspector_arguments(parser)
    parser.add_argument("--results", type=Path, required=True, metavar="FILE", help="file of the lines; made if new")
    parser.add_argument("--heat-maps", type=Path, metavar="DIR", help="folder for a picture of each photograph's map")
    parser.add_argument(
        "--settle",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="how long a file must stay as it is before it is read; default: 1",
    )
    parser.add_argument(
        "--patience",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long a file that cannot be read is waited for; default: 10",
    )
    add_drift_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Watch until a signal; return 0, or 2 if the results cannot be read or written."""
    folder, pictures = arguments.folder, arguments.heat_maps
    if pictures is not None and pictures.resolve().is_relative_to(folder.resolve()):
        print(
            f"Expected heat maps outside of {folder}, where they would be inspected; got {pictures}.", file=sys.stderr
        )
        return 2
    inspector = make_checked_inspector(arguments)
    drift = make_drift(inspector, arguments)
    try:
        with ResultsFile(arguments.results) as results:
            print(f"Watching {folder}; {len(results)} photographs have a line.", file=sys.stderr, flush=True)
            watcher = Watcher(folder, results, inspector, arguments.settle, arguments.patience, pictures, drift)
            watcher.run(Stop().listen())
    except (OSError, ValueError) as error:
        print(f"Stopped: {error}\nEvery line that was written is kept; start again to go on.", file=sys.stderr)
        return 2
    print(f"Stopped after {watcher.written} photographs.", file=sys.stderr)
    return 0
