"""A YAML document with the line of every key, and what YAML would silently let pass."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

MAX_NODES = 100_000  # keys and values, those behind an alias counted wherever it stands
TAG = "tag:yaml.org,2002:"
KINDS = {yaml.MappingNode: "map", yaml.SequenceNode: "seq", yaml.ScalarNode: "str"}
PLAIN_TAGS = {TAG + kind for kind in ("map", "seq", "str", "int", "float", "bool", "null", "merge")}


@dataclass(frozen=True)
class Document:
    """A YAML document.

    Attributes:
        content: Mappings, lists, texts, numbers, truth values and ``None``, with merge keys (``<<: *base``) resolved.
        lines: The line, counted from 1, of every path of keys.
        faults: Line and text of every key that stands twice, and of every value of another kind, such as a date.
    """

    content: Any
    lines: dict[tuple, int]
    faults: list[tuple[int, str]]


class NotYAMLError(ValueError):
    """What keeps a text from being read as YAML, on one line, and the line of the text where it stands."""

    def __init__(self, line: int, problem: str) -> None:
        self.line = line
        super().__init__(f"not YAML: {' '.join(problem.split())}")


class _Loader(yaml.SafeLoader):
    """A safe loader that gives the line of a number that is none."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise _error(str(error), node) from None


def read_yaml(text: str) -> Document:
    r"""Return the content of a YAML document, the line of every key, and what is wrong with it.

    Raises:
        NotYAMLError: If the text is not YAML, contains itself, is nested too deeply, or too large with its aliases.

    Example:
        >>> read_yaml("a:\n  b: 1").lines
        {('a',): 1, ('a', 'b'): 2}
    """
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return Document(None, {}, [])
        for count, node in enumerate(_nodes(root)):
            if count == MAX_NODES:
                msg = f"with its aliases it has more than {MAX_NODES:,} values"
                raise _error(msg, node)
        faults = list(dict.fromkeys(_faults(root)))
        content = loader.construct_document(root)  # it also puts what is merged in the place of merge keys
        return Document(content, dict(_lines(root)), faults)
    except RecursionError:
        raise NotYAMLError(1, "it is nested too deeply") from None
    except yaml.reader.ReaderError as error:
        raise NotYAMLError(text.count("\n", 0, error.position) + 1, str(error)) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise NotYAMLError(line, error.problem or str(error)) from None


def _nodes(node: yaml.Node, above: tuple[yaml.Node, ...] = ()) -> Iterator[yaml.Node]:
    """Yield a node and all below it, as often as they stand there; raise where one contains itself."""
    if any(node is other for other in above):
        msg = "an alias stands inside of what it stands for"
        raise _error(msg, node)
    yield node
    below = node.value if isinstance(node, yaml.CollectionNode) else []
    for part in below:
        for child in part if isinstance(part, tuple) else (part,):
            yield from _nodes(child, (*above, node))


def _faults(root: yaml.Node) -> Iterator[tuple[int, str]]:
    """Yield the faults of a document, and take values of another kind for plain ones."""
    for node in _nodes(root):
        if node.tag not in PLAIN_TAGS:
            kind = node.tag.removeprefix(TAG)
            yield _line(node), f"a {kind} is not taken here; put it in quotes if it is meant as text"
            node.tag = TAG + next(kind for cls, kind in KINDS.items() if isinstance(node, cls))
        if isinstance(node, yaml.MappingNode):
            yield from _repeated_keys(node)


def _repeated_keys(node: yaml.MappingNode) -> Iterator[tuple[int, str]]:
    first: dict[tuple, int] = {}
    for key, _ in node.value:
        identity = key.tag, str(key.value)
        if identity in first:
            yield _line(key), f"the key {key.value!r} stands twice, first in line {first[identity]}; only one can count"
        first.setdefault(identity, _line(key))


def _lines(node: yaml.Node, place: tuple = ()) -> Iterator[tuple[tuple, int]]:
    """Yield the path of every key in a YAML document with its line, counted from 1."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*place, yaml.safe_load(yaml.serialize(key)))
            yield here, _line(key)
            yield from _lines(value, here)


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _error(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
