"""A YAML document with the line of every key."""

from collections.abc import Iterator
from typing import Any

import yaml


def read_yaml(text: str) -> tuple[Any, dict[tuple, int]]:
    r"""Return the content of a YAML document, and the line, counted from 1, of every path of keys.

    Raises:
        yaml.YAMLError: If the text is not YAML.

    Example:
        >>> read_yaml("a:\n  b: 1")
        ({'a': {'b': 1}}, {('a',): 1, ('a', 'b'): 2})
    """
    return yaml.safe_load(text), dict(_lines(yaml.compose(text)))


def _lines(node: yaml.Node | None, place: tuple = ()) -> Iterator[tuple[tuple, int]]:
    """Yield the path of every key in a YAML document with its line, counted from 1."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*place, yaml.safe_load(yaml.serialize(key)))
            yield here, key.start_mark.line + 1
            yield from _lines(value, here)
