"""The parts that a report is made of: cells, tables, figures, pictures, sections and the page."""

from collections.abc import Mapping
from dataclasses import dataclass, field

DASH = "–"  # shown for a value that is missing


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What it shows.
        value: Number to sort by; ``None`` sorts by text.
        mark: Name of its style, such as ``best`` or ``bad``; empty for none.
    """

    text: str
    value: float | None = None
    mark: str = ""


@dataclass(frozen=True)
class Column:
    """Head of a column; numbers are set to the right and sorted as numbers."""

    label: str
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns, with a caption."""

    caption: str
    columns: tuple[Column, ...]
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Figure:
    """A drawing as SVG text, with the caption under it; of small ones more stand in a row."""

    svg: str
    caption: str
    small: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture of a test image.

    Attributes:
        description: What it shows, in full, for those who cannot see it.
        caption: What it shows, in short.
        address: Its bytes as a ``data:`` address.
    """

    description: str
    caption: str
    address: str


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        name: Anchor and style class on the page.
        title: Heading.
        notes: Sentences under the heading.
        tables: Tables that are always open.
        folded: Tables that can be closed on the page.
        figures: Drawings.
        pictures: Pictures by data set.
        visual: Whether it is made of figures or pictures only; Markdown leaves it out, even if there are none of them.
    """

    name: str
    title: str
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    pictures: Mapping[str, tuple[Picture, ...]] = field(default_factory=dict)
    visual: bool = False


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
        title: Title.
        facts: Label and value of each fact under the title.
        sections: The parts in their order.
        numbers: Number of each model in the figures, in the order of the models; empty for figures with a key inside.
        kind: What sort of report it is.
        command: The command that made it.
    """

    title: str
    facts: tuple[tuple[str, Cell], ...]
    sections: tuple[Section, ...]
    numbers: Mapping[str, int]
    kind: str = "Benchmark report"
    command: str = "anomalib-lamp report"


def text(value: str) -> Cell:
    """Return a cell with a text."""
    return Cell(value)


def number(value: float | None, form: str = ".3f", mark: str = "") -> Cell:
    """Return a cell with a number; a dash without one."""
    return Cell(DASH) if value is None else Cell(format(value, form), value, mark)


def size(value: float | None) -> Cell:
    """Return a cell with a time or a size, to three digits.

    Example:
        >>> [size(value).text for value in (1234.5, 12.34, 0.123, None)]
        ['1,234', '12.3', '0.12', '–']
    """
    if value is None:
        return Cell(DASH)
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return Cell(f"{value:,.{digits}f}", value)
