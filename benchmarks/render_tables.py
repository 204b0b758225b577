"""Renders the tables of README.md and benchmarks/README.md from the committed results.

python benchmarks/render_tables.py    (a test says when it has to be run)
"""

from collections import defaultdict
from pathlib import Path

import mnist
from poster_table import beside_the_poster

from anomalib_lamp.benchmark.records import read_records
from anomalib_lamp.benchmark.report import compact_table, render_between, render_table
from anomalib_lamp.benchmark.report.tables import Column, Table, order_models, text
from anomalib_lamp.benchmark.statistics import Comparison, Summary, compare, summarize

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
PAIRS = {  # with LAMP, without
    "repair, the default": ("LampAE", "LampAE without LAMP"),
    "plain reconstruction": ("plain reconstruction amplify=true", "plain reconstruction amplify=false"),
}


def metric_table(results: str, metric: str) -> str:
    """Return a metric of every model and data set."""
    return render_table(compact_table(read_records(RESULTS / results), metric))


def ablation_table(results: str) -> str:
    """Return image / pixel AUROC of every variant, means over seeds, and what the variant changes, in pairs."""
    records = read_records(RESULTS / results)
    summaries = summarize(records)
    cells = {(summary.model, summary.data): aurocs(summary) for summary in summaries}
    changes: defaultdict[str, list[str]] = defaultdict(list)
    for metric in ("image_AUROC", "pixel_AUROC"):
        for paired in compare(records, "default", metric):
            if paired.data is None:
                changes[paired.model] += differences(paired)
    changes["default"] = [""] * 6
    names = sorted({summary.data for summary in summaries})
    rows = [
        [model, *(cells.get((model, data), "–") for data in names), *changes[model]]
        for model in order_models(summaries)
    ]
    figures = ["image AUROC", "95 % interval", "W, T, L", "pixel AUROC", "95 % interval", "W, T, L"]
    columns = (Column("variant", numeric=False), *map(Column, [*names, *figures]))
    return render_table(Table(results, columns, [list(map(text, row)) for row in rows]))


def seeds_table(results: str) -> str:
    """Return image / pixel AUROC of one model on every data set, seed by seed, and their mean."""
    records = read_records(RESULTS / results)
    seeds = sorted({record.seed for record in records})
    rows = {str(seed): summarize([record for record in records if record.seed == seed]) for seed in seeds}
    rows["mean"] = summarize(records)
    columns = (Column("seed", numeric=False), *(Column(summary.data) for summary in rows["mean"]))
    cells = [[text(name), *(text(aurocs(summary)) for summary in row)] for name, row in rows.items()]
    return render_table(Table(results, columns, cells))


def aurocs(summary: Summary) -> str:
    """Return the means over seeds of image and pixel AUROC."""
    return " / ".join(f"{summary.metrics[metric].mean:.3f}" for metric in ("image_AUROC", "pixel_AUROC"))


def amplification_table(results: str) -> str:
    """Return what LAMP changes in every training, over all data sets and on each, in pairs of the same seed."""
    records = read_records(RESULTS / results)
    rows = []
    for training, (lamp, base) in PAIRS.items():
        of_training = [record for record in records if record.model in (lamp, base)]
        images, pixels = (compare(of_training, base, metric) for metric in ("image_AUROC", "pixel_AUROC"))
        for of_images, of_pixels in zip(images, pixels, strict=True):
            data = of_images.data or "all"
            rows.append([training, data, str(of_images.pairs), *differences(of_images), *differences(of_pixels)])
    figures = ["pairs", "image AUROC", "95 % interval", "W, T, L", "pixel AUROC", "95 % interval", "W, T, L"]
    columns = (Column("training", numeric=False), Column("data", numeric=False), *map(Column, figures))
    return render_table(Table(results, columns, [list(map(text, row)) for row in rows]))


def differences(paired: Comparison) -> list[str]:
    """Return the mean difference, its interval, and how many pairs are won, tied and lost."""
    return [
        f"{paired.mean:+.4f}",
        f"{paired.low:+.4f} to {paired.high:+.4f}",
        f"{paired.wins}, {paired.ties}, {paired.losses}",
    ]


TABLES = {
    "README.md": {"image AUROC": lambda: metric_table("baselines.jsonl", "image_AUROC")},
    "benchmarks/README.md": {
        "image AUROC": lambda: metric_table("baselines.jsonl", "image_AUROC"),
        "pixel AUROC": lambda: metric_table("baselines.jsonl", "pixel_AUROC"),
        "AUPRO": lambda: metric_table("baselines.jsonl", "AUPRO"),
        "long trainings": lambda: seeds_table("full_budget.jsonl"),
        "ablation": lambda: ablation_table("ablation.jsonl"),
        "drawn parts, image AUROC": lambda: metric_table("quick.jsonl", "image_AUROC"),
        "drawn parts, pixel AUROC": lambda: metric_table("quick.jsonl", "pixel_AUROC"),
        "LAMP": lambda: amplification_table("baselines.jsonl"),
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
