"""predict."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""


def run(arguments: argparse.Namespace) -> int:
    """Run."""
    raise NotImplementedError
