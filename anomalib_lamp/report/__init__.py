"""`anomalib-lamp report`: Markdown tables and one HTML page that loads nothing."""

from pathlib import Path

from anomalib_lamp.compare.records import ResultFolder, read_records, write_durably
from anomalib_lamp.report.html import render_html
from anomalib_lamp.report.markdown import render_between, render_markdown, render_table
from anomalib_lamp.report.page import make_page
from anomalib_lamp.report.tables import compact_table

__all__ = ["compact_table", "render_between", "render_table", "report"]


def report(results: Path, out: Path | None = None, baseline: str | None = None) -> Path:
    """Write report.md and report.html from the results of a comparison.

    The page shows quality, failed jobs, a paired comparison with a baseline, a ranking, costs, ROC curves and kinds of
    defects; made from a folder it also has pictures of the best and the worst cases, and names damaged records. It is
    one file that loads nothing.

    Args:
        results: Folder of a sweep, or a file of its records (results.jsonl).
        out: Folder to write to; the folder of the results by default.
        baseline: Model to compare the others with. By default the one with the most finished jobs, the best of several.

    Returns:
        Path of the page.

    Raises:
        FileNotFoundError: If there are no results.
        OSError: If the folder cannot be written to.
        ValueError: If a record does not follow the schema, or no model is called ``baseline``.
    """
    results = Path(results)
    damage: list[str] = []
    records = read_records(results, damage)
    folder = ResultFolder(results) if results.is_dir() else None
    page = make_page(records, baseline, folder, damage)
    out = Path(out) if out is not None else results if folder else results.parent
    write_durably(out / "report.md", render_markdown(page))
    path = out / "report.html"
    write_durably(path, render_html(page))
    return path
