"""The command `anomalib-lamp-runtime`: every module in `commands` is a subcommand."""

import argparse
import os
import sys
from collections.abc import Sequence

from anomalib_lamp_runtime.commands import COMMANDS
from anomalib_lamp_runtime.errors import ExportError, InspectionError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand and exit with its code: 0 is good, 1 says that something was found, 2 that it cannot run.

    Args:
        arguments: Words of the command line; those of the process if not given.
    """
    parser = argparse.ArgumentParser(prog="anomalib-lamp-runtime", description="Inspect photographs of parts.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        summary = (command.__doc__ or "").strip().partition("\n")[0]
        subparser = subparsers.add_parser(
            command.__name__.rpartition(".")[2], help=summary, description=command.__doc__
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    parsed = parser.parse_args(arguments)
    try:
        sys.exit(parsed.run(parsed))
    except BrokenPipeError:  # whoever read our output has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ExportError, InspectionError, ModuleNotFoundError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
