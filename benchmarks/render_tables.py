"""Renders the tables of README.md and benchmarks/README.md from the committed results.

python benchmarks/render_tables.py    (a test says when it has to be run)
"""

from pathlib import Path

from anomalib_lamp.benchmark.records import read_records
from anomalib_lamp.benchmark.report import compact_table, render_between, render_table

REPOSITORY = Path(__file__).parents[1]
TABLES = {
    "README.md": {"image AUROC": "image_AUROC"},
    "benchmarks/README.md": {"image AUROC": "image_AUROC", "pixel AUROC": "pixel_AUROC", "AUPRO": "AUPRO"},
}


def render(path: str) -> str:
    """Return a document of the repository with its tables up to date."""
    records = read_records(REPOSITORY / "benchmarks" / "results" / "baselines.jsonl")
    document = (REPOSITORY / path).read_text()
    for name, metric in TABLES[path].items():
        document = render_between(document, name, render_table(compact_table(records, metric)))
    return document


if __name__ == "__main__":
    for path in TABLES:
        (REPOSITORY / path).write_text(render(path))
