"""The command `anomalib-lamp`: `compare`, `report`, and anomalib's own subcommands with our classes registered."""

import sys
from importlib import import_module

import anomalib_lamp  # noqa: F401  registers

USAGE = """\
anomalib-lamp compare SPEC    run and resume a comparison of models (--help explains it)
anomalib-lamp report RESULTS  tables, statistics and an HTML page of a comparison

Every other subcommand is anomalib's, whatever the start-up hook does:
"""


def main() -> None:
    """Run `compare`, `report` or anomalib's command line; `anomalib-lamp train --model LampAE` is the main use."""
    subcommand = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if subcommand in ("compare", "report"):
        _run_ours(subcommand)
        return
    if subcommand in ("-h", "--help"):
        print(USAGE)
    from anomalib.cli.cli import main as anomalib_main

    anomalib_main()


def _run_ours(subcommand: str) -> None:
    """Run `compare` or `report` with the remaining arguments."""
    from jsonargparse import ArgumentParser

    module = import_module({"compare": "anomalib_lamp.compare.runner", "report": "anomalib_lamp.report"}[subcommand])
    function = getattr(module, subcommand)
    parser = ArgumentParser(prog=f"anomalib-lamp {subcommand}", description=(function.__doc__ or "").partition("\n")[0])
    parser.add_function_arguments(function, as_positional=True)
    function(**parser.parse_args(sys.argv[2:]).as_dict())
