"""Classes by their names, and instances of them from plain values, which jsonargparse checks."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from jsonargparse import ArgumentParser


def instantiate(config: Mapping[str, Any]) -> Any:
    """Return an instance of a resolved ``{"class_path": ..., "init_args": ...}``.

    Raises:
        ImportError: If there is no such class on this machine.
    """
    cls = import_class(config["class_path"])
    if cls is None:
        msg = f"There is no {config['class_path']} here; install its package on every machine that works on jobs."
        raise ImportError(msg)
    parser = parser_of(cls)
    return parser.instantiate_classes(parser.parse_object({"init_args": config["init_args"]})).init_args


@cache
def parser_of(cls: type) -> ArgumentParser:
    """Return a parser of the init arguments of a class."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "init_args", fail_untyped=False)
    return parser


def import_class(class_path: str) -> Any:
    """Return what stands at a dotted path, or ``None``."""
    module, _, name = class_path.rpartition(".")
    try:
        return getattr(import_module(module), name, None)
    except ImportError:
        return None


def is_proper_subclass(value: Any, base: type) -> bool:
    """Return whether something is a class below a base."""
    return isinstance(value, type) and issubclass(value, base) and value is not base
