"""A report, or a single table, as Markdown."""

import re
from collections.abc import Sequence

import numpy as np

from anomalib_lamp.compare.records import Record
from anomalib_lamp.compare.statistics import spread, summarize
from anomalib_lamp.report.page import Page
from anomalib_lamp.report.tables import METRIC_DIGITS, Cell, Column, Table, mean_std, number, order_models, text


def render_markdown(page: Page) -> str:
    """Return a report as Markdown; it has all tables, but neither drawings nor pictures."""
    parts = [f"# {escape(page.title)}", ", ".join(f"{label}: {escape(value)}" for label, value in page.facts)]
    for section in page.sections:
        if section.name == "roc":
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


def compact_table(records: Sequence[Record], metric: str = "image_AUROC", models: Sequence[str] | None = None) -> Table:
    """Return data sets x models of one metric, mean ± std over seeds, for a README.

    The last row is the mean over the data sets that all these models have a result on.

    Args:
        records: Records of a sweep.
        metric: Name of the metric.
        models: The columns in their order; ``None`` takes all, the most complete and best first.

    Raises:
        ValueError: If a model has no record.
    """
    summaries = summarize(records)
    known = order_models(summaries)
    models = known if models is None else list(models)
    if unknown := [model for model in models if model not in known]:
        msg = f"Expected models with records, {known}, got {unknown}."
        raise ValueError(msg)
    cells = {(summary.data, summary.model): summary.metrics[metric] for summary in summaries}
    rows, shared = [], []
    for data in sorted({summary.data for summary in summaries}):
        of_data = [cells.get((data, model), spread([])) for model in models]
        means = [value.mean for value in of_data if value.mean is not None]
        best = round(max(means), METRIC_DIGITS) if means else None
        rows.append([text(data), *(mean_std(value, best=best) for value in of_data)])
        if len(means) == len(models):
            shared.append(means)
    if len(shared) > 1:
        averages = np.mean(shared, axis=0).round(METRIC_DIGITS).tolist()
        marks = ["best" if value == max(averages) else "" for value in averages]
        rows.append([text(f"mean of {len(shared)}"), *map(number, averages, [".3f"] * len(models), marks)])
    return Table(metric, (Column("data", numeric=False), *map(Column, models)), rows)


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
