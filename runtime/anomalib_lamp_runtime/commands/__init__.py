"""The subcommands: a module each, whose name is the command, whose docstring is its help, with two functions.

``add_arguments(parser)`` adds its arguments to an :class:`argparse.ArgumentParser`; ``run(arguments)`` returns the exit
code.
"""

from types import ModuleType

from anomalib_lamp_runtime.commands import bench, check, predict, serve, watch

COMMANDS: list[ModuleType] = [predict, watch, serve, check, bench]
