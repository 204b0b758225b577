"""Renders the tables of README.md and benchmarks/README.md from the committed results.

python benchmarks/render_tables.py    (a test says when it has to be run)
"""

from pathlib import Path

import mnist
from poster_table import beside_the_poster

from anomalib_lamp.benchmark.records import read_records
from anomalib_lamp.benchmark.report import compact_table, render_between, render_table

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"


def metric_table(results: str, metric: str) -> str:
    """Return a metric of every model and data set."""
    return render_table(compact_table(read_records(RESULTS / results), metric))


TABLES = {
    "README.md": {"image AUROC": lambda: metric_table("baselines.jsonl", "image_AUROC")},
    "benchmarks/README.md": {
        "image AUROC": lambda: metric_table("baselines.jsonl", "image_AUROC"),
        "pixel AUROC": lambda: metric_table("baselines.jsonl", "pixel_AUROC"),
        "AUPRO": lambda: metric_table("baselines.jsonl", "AUPRO"),
        "drawn parts, image AUROC": lambda: metric_table("quick.jsonl", "image_AUROC"),
        "drawn parts, pixel AUROC": lambda: metric_table("quick.jsonl", "pixel_AUROC"),
        "poster, bottle": lambda: beside_the_poster(read_records(RESULTS / "poster_bottle.jsonl")),
        "poster, MNIST": lambda: mnist.table(mnist.read(RESULTS / "mnist.jsonl")),
    },
}


def render(path: str) -> str:
    """Return a document of the repository with its tables up to date."""
    document = (REPOSITORY / path).read_text()
    for name, table in TABLES[path].items():
        document = render_between(document, name, table())
    return document


if __name__ == "__main__":
    for path in TABLES:
        (REPOSITORY / path).write_text(render(path))
