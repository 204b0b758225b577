"""Inspect a photograph, or all in a folder, and print one line of JSON for each.

A line holds the file and either score, raw_score, threshold, anomalous, regions, brightness and sharpness, or the
error. The exit code is 1 if there was an error.
"""

import argparse
import json
import sys
from pathlib import Path

from anomalib_lamp_runtime.arguments import add_inspector_arguments, make_inspector
from anomalib_lamp_runtime.errors import InspectionError
from anomalib_lamp_runtime.inspector import Inspector
from anomalib_lamp_runtime.photographs import photographs_in, read_photograph


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("photographs", type=Path, metavar="FILE|DIR", help="a photograph, or a folder of them")
    add_inspector_arguments(parser)
    parser.add_argument("--heat-maps", type=Path, metavar="DIR", help="folder for heat maps, named as the photographs")


def run(arguments: argparse.Namespace) -> int:
    """Print a line for every photograph."""
    source = arguments.photographs
    if arguments.heat_maps and arguments.heat_maps.resolve().is_relative_to(source.resolve()):
        msg = f"Expected heat maps outside of {source}, where they would be inspected, got {arguments.heat_maps}."
        print(msg, file=sys.stderr)
        return 2
    inspector = make_inspector(arguments)
    code = 0
    for file in photographs_in(source):
        heat_map = arguments.heat_maps and arguments.heat_maps / f"{file.relative_to(source.parent)}.png"
        try:
            line = inspect(inspector, file, heat_map)
        except InspectionError as error:
            line, code = {"error": str(error)}, 1
        print(json.dumps({"file": str(file), **line}), flush=True)
    return code


def inspect(inspector: Inspector, file: Path, heat_map: Path | None) -> dict:
    """Return an inspection as plain values, and save its heat map if there is a path for it."""
    image = read_photograph(file, inspector.max_pixels)
    inspection = inspector(image)
    if heat_map:
        heat_map.parent.mkdir(parents=True, exist_ok=True)
        inspection.heat_map(image).save(heat_map)
    return inspection.as_dict()
