"""The command `anomalib-lamp`: our own subcommands, and anomalib's with our classes registered."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from jsonargparse import ArgumentParser, DefaultHelpFormatter

import anomalib_lamp  # noqa: F401  registers
from anomalib_lamp.compare.runner import compare
from anomalib_lamp.compare.spec import GRAMMAR
from anomalib_lamp.report import report

SUMMARIES = {
    "compare": "Compare models on data sets.",
    "report": "Write tables and a page of a comparison.",
    "export": "Write a model for the runtime, and check it.",
    "landscape": "Draw the loss around trained weights.",
}
REPORT = """\
Write report.md and report.html from the results of `anomalib-lamp compare`:
quality, failed jobs, paired differences from a baseline, ranking, costs, ROC
curves, kinds of defects, and pictures of the best and worst cases. The page
is one file that loads nothing.
"""
EXPORT = """\
Write a folder that `anomalib-lamp-runtime` inspects photographs with: model.onnx
(and OpenVINO files), metadata.json (thresholds, normalisation, SHA-256,
versions, scores and looks of normal photographs) and golden/, photographs with
what the checkpoint predicts for them. The runtime then checks the folder; if it
predicts something else, nothing is written. anomalib's own export is
`anomalib export`.
"""
LANDSCAPE = """\
Draw the loss around the weights of trained models, and measure how sharp it
is: contours and surfaces on shared axes, curvature, random and worst
perturbations, a JSON file and one HTML page that loads nothing. Of LampAE and
of the models whose loss AmplifyLoss knows. A stopped run goes on.

  anomalib-lamp landscape base.ckpt lamp.ckpt --out results/landscape \\
      --data MVTec --data.root ./datasets/MVTecAD --data.category bottle
"""


class PlainDescription(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """jsonargparse's help, with the lines of a description left as they are."""


def main() -> None:
    """Run the command line; `anomalib-lamp train --model LampAE` is the main use."""
    if sys.argv[1:2] == ["compare"]:
        compare(**_arguments(compare, GRAMMAR))
    elif sys.argv[1:2] == ["report"]:
        _report()
    elif sys.argv[1:2] == ["export"]:
        _export()
    elif sys.argv[1:2] == ["landscape"]:
        _landscape()
    else:
        _run_anomalib()


def _report() -> None:
    """Write a report and say where it is, or why there is none."""
    _write_page(report, _arguments(report, REPORT))


def _landscape() -> None:
    """Draw a landscape and say where it is, or why there is none."""
    from anomalib_lamp.landscape.command import landscape

    parser = _parser(landscape, LANDSCAPE)
    parser.add_argument("checkpoints", nargs="+", type=Path, help="files of trained models of the same architecture")
    parser.add_function_arguments(landscape, skip={"checkpoints"})
    _write_page(landscape, parser.instantiate_classes(parser.parse_args(sys.argv[2:])).as_dict())


def _write_page(write: Callable[..., Path], arguments: dict) -> None:
    """Write a page and say where it is, or why there is none."""
    try:
        page = write(**arguments)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"Page: {page}\nTables as Markdown: {page.with_suffix('.md')}")


def _export() -> None:
    """Export a model and say where it is, or why it is not."""
    try:
        from anomalib_lamp.export import export
    except ModuleNotFoundError as error:
        if error.name != "anomalib_lamp_runtime":
            raise
        print("The export needs the runtime: pip install ./runtime in the folder of anomalib-lamp.", file=sys.stderr)
        sys.exit(2)
    parser = _parser(export, EXPORT)
    parser.add_function_arguments(export, skip={"openvino"})
    parser.add_argument("--openvino", action="store_true", help="Write OpenVINO files as well.")
    arguments = parser.parse_args(sys.argv[2:]).as_dict()
    try:
        folder = export(**arguments)
    except (ModuleNotFoundError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"Exported and checked: {folder}")


def _arguments(function: Callable, description: str) -> dict:
    """Return the arguments of a function from the command line."""
    parser = _parser(function, description)
    parser.add_function_arguments(function, as_positional=True)
    return parser.parse_args(sys.argv[2:]).as_dict()


def _parser(function: Callable, description: str) -> ArgumentParser:
    """Return a parser without arguments for the command that a function runs."""
    name = f"anomalib-lamp {function.__name__}"
    return ArgumentParser(prog=name, description=description, formatter_class=PlainDescription)


def _run_anomalib() -> None:
    """Run anomalib's command line, whose help lists our subcommands too."""
    from anomalib.cli.cli import AnomalibCLI

    class LampCLI(AnomalibCLI):
        """anomalib's command line; our subcommands are run before it is built, which saves half a second."""

        @staticmethod
        def anomalib_subcommands() -> dict[str, dict[str, str]]:
            ours = {name: {"description": summary} for name, summary in SUMMARIES.items()}
            return AnomalibCLI.anomalib_subcommands() | ours

        def add_compare_arguments(self, parser: ArgumentParser) -> None:
            """Add nothing."""

        def add_report_arguments(self, parser: ArgumentParser) -> None:
            """Add nothing."""

        def add_landscape_arguments(self, parser: ArgumentParser) -> None:
            """Add nothing."""

    LampCLI()
