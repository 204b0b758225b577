"""A report, or a single table, as Markdown."""

import re

from anomalib_lamp.report.elements import Cell, Page, Table


def render_markdown(page: Page) -> str:
    """Return a report as Markdown; it has all tables, but neither figures nor pictures."""
    parts = [f"# {escape(page.title)}", ", ".join(f"{label}: {escape(value.text)}" for label, value in page.facts)]
    for section in page.sections:
        if section.visual:
            continue
        parts.append(f"## {section.title}")
        parts += ["\n".join(f"- {escape(note)}" for note in section.notes)] if section.notes else []
        for table in (*section.tables, *section.folded):
            if len(section.tables) + len(section.folded) > 1:
                parts.append(f"### {escape(table.caption)}")
            parts.append(render_table(table))
    return "\n\n".join(parts) + "\n"


def render_table(table: Table) -> str:
    r"""Return a table as Markdown, without its caption; the best values are bold.

    Example:
        >>> from anomalib_lamp.report.elements import Column, number, text
        >>> columns = (Column("model", numeric=False), Column("AUROC"))
        >>> print(render_table(Table("Quality", columns, [[text("A|B"), number(0.5)]])))
        | model | AUROC |
        |---|--:|
        | A\|B | 0.500 |
    """
    head = "| " + " | ".join(escape(column.label) for column in table.columns) + " |"
    rule = "|" + "|".join("--:" if column.numeric else "---" for column in table.columns) + "|"
    rows = ("| " + " | ".join(map(_cell, row)) + " |" for row in table.rows)
    return "\n".join([head, rule, *rows])


def _cell(cell: Cell) -> str:
    """Return the text of a cell: of an error the last line, the best bold."""
    if cell.mark == "error":
        return escape(cell.text.strip().rsplit("\n", 1)[-1])
    return f"**{escape(cell.text)}**" if cell.mark == "best" else escape(cell.text)


def escape(value: str) -> str:
    r"""Return text that Markdown shows as it is, on one line.

    Example:
        >>> print(escape("a_b *c* <script>"))
        a_b \*c\* &lt;script&gt;
    """
    value = " ".join(value.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*|\[\]~]|(?<!\w)_|_(?!\w))", r"\\\1", value)


def render_between(document: str, name: str, table: str) -> str:
    """Return a document with what stands between ``<!-- table: NAME -->`` and ``<!-- /table -->`` replaced.

    Args:
        document: The text with the markers.
        name: Name in the opening marker.
        table: What is to stand between them.

    Raises:
        ValueError: If the opening marker is not there exactly once, or is not closed before the next one.

    Example:
        >>> print(render_between("<!-- table: speed -->old<!-- /table -->", "speed", "| new |"))
        <!-- table: speed -->
        <BLANKLINE>
        | new |
        <BLANKLINE>
        <!-- /table -->
    """
    opening, closing = f"<!-- table: {name} -->", "<!-- /table -->"
    count = document.count(opening)
    if count != 1:
        known = re.findall(r"<!-- table: (.*?) -->", document)
        msg = f"Expected the marker {opening!r} exactly once, got it {count} times; the tables here are {known}."
        raise ValueError(msg)
    before, after = document.split(opening)
    old, found, rest = after.partition(closing)
    if not found or "<!-- table: " in old:
        msg = f"Expected {closing!r} after {opening!r}, before the next table, got none. Put it where the table ends."
        raise ValueError(msg)
    return f"{before}{opening}\n\n{table.strip()}\n\n{closing}{rest}"
