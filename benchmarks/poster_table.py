"""Sets a sweep of configs/compare/poster_mvtec.yaml beside Table 2 of the poster, with paired statistics.

python benchmarks/poster_table.py results/compare/poster_mvtec > table.md
"""

from collections import defaultdict
from pathlib import Path
from statistics import fmean

import pandas as pd
from jsonargparse import auto_cli

from anomalib_lamp.benchmark.records import Record, finished, read_records
from anomalib_lamp.benchmark.statistics import compare

HEAD = "| category | loss | optimiser | base | LAMP | seeds | poster, base | poster, LAMP |\n|---" + "|---" * 7 + "|"
POSTER = Path(__file__).parent / "poster" / "mvtec.csv"


def main(results: Path) -> None:
    """Print the table and what amplification changes over all pairs.

    Args:
        results: Folder of the sweep or its results.jsonl.
    """
    records = finished(read_records(results))
    poster = pd.read_csv(POSTER).set_index(["category", "base_loss", "optimizer"])
    print(
        "| category | loss | optimiser | base | LAMP | seeds | poster, base | poster, LAMP |\n|---" + "|---" * 7 + "|"
    )
    for (category, loss, optimizer), cell in sorted(cells(records).items()):
        theirs = poster.loc[(category, loss, optimizer)]
        figures = [fmean(cell[amplify].values()) if cell[amplify] else float("nan") for amplify in (False, True)]
        seeds = len(cell[False].keys() & cell[True].keys())
        row = [
            category,
            loss,
            optimizer,
            *(f"{figure:.3f}" for figure in figures),
            seeds,
            theirs["base"],
            theirs["lamp"],
        ]
        print(f"| {' | '.join(map(str, row))} |")
    print(f"\n{difference(records)}")


def cells(records: list[Record]) -> dict[tuple[str, str, str], dict[bool, dict[int, float]]]:
    """Return ``{(category, loss, optimiser): {amplify: {seed: image AUROC}}}``."""
    table: dict = defaultdict(lambda: {False: {}, True: {}})
    for record in records:
        category = record.config["data"]["init_args"]["category"]
        key = (category, record.grid["base_loss"], record.grid["optimizer"])
        table[key][record.grid["amplify"]][record.seed] = record.metrics.image_AUROC
    return table


def difference(records: list[Record]) -> str:
    """Return LAMP against its base in words: mean difference, interval, wins and losses over all pairs."""
    named = [
        record.model_copy(
            update={
                "model": "LAMP" if record.grid["amplify"] else "base",
                "data": f"{record.data} {record.grid['base_loss']} {record.grid['optimizer']}",
            }
        )
        for record in records
    ]
    over_all = compare(named, baseline="base")[0]
    return (
        f"LAMP - base over {over_all.pairs} pairs: {over_all.mean:+.4f} [{over_all.low:+.4f}, {over_all.high:+.4f}], "
        f"wins {over_all.wins}, ties {over_all.ties}, losses {over_all.losses}, Wilcoxon p = {over_all.p:.3f}."
    )


if __name__ == "__main__":
    auto_cli(main)
