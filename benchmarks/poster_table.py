"""Sets a sweep beside Table 2 of the LAMP poster, MVTec AD, with paired statistics.

python benchmarks/poster_table.py results/compare/poster_mvtec > table.md
"""

from pathlib import Path
from statistics import fmean

import pandas as pd
from jsonargparse import auto_cli

from anomalib_lamp.compare.records import Record, finished, read_records
from anomalib_lamp.compare.statistics import PairedDifference, paired_differences

POSTER = Path(__file__).parent / "poster" / "mvtec.csv"
HEAD = ["category", "base_loss", "optimizer", "base", "LAMP", "LAMP - base", "pairs", "poster, base", "poster, LAMP"]


def main(results: Path) -> None:
    """Print the table and what amplification changes over all pairs.

    Args:
        results: Folder of the sweep or its results.jsonl.
    """
    print(beside_the_poster(read_records(results)))


def beside_the_poster(records: list[Record]) -> str:
    """Return the table, rows without a result left out, and in words what amplification changes over all pairs."""
    records = finished(records)
    rows = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    for *names, base, lamp in pd.read_csv(POSTER).itertuples(index=False):
        of_row = [record for record in records if row_of(record) == tuple(names)]
        if of_row:
            rows.append(f"| {' | '.join(map(str, [*names, *figures(of_row), base, lamp]))} |")
    return "\n".join([*rows, "", in_words(difference(records))])


def row_of(record: Record) -> tuple:
    """Return what a job has in the columns that name a row: category, base loss, optimiser."""
    return record.config["data"]["init_args"]["category"], record.grid["base_loss"], record.grid["optimizer"]


def figures(records: list[Record]) -> list[str]:
    """Return a row's means without and with amplification, their difference and its interval, the number of pairs."""
    means = []
    for amplify in (False, True):
        values = [record.metrics.image_AUROC for record in records if record.grid["amplify"] is amplify]
        means.append(f"{fmean(values):.3f}" if values else "")
    paired = difference(records)
    return [*means, interval(paired.mean, paired.low, paired.high), str(paired.pairs)] if paired else [*means, "", "0"]


def difference(records: list[Record]) -> PairedDifference | None:
    """Return LAMP against its base, paired by data, row and seed; nothing without a pair."""
    renamed = [
        record.model_copy(
            update={
                "model": "LAMP" if record.grid["amplify"] else "base",
                "data": f"{record.data} {row_of(record)}",
            }
        )
        for record in records
    ]
    if {record.model for record in renamed} != {"base", "LAMP"}:
        return None
    paired = paired_differences(renamed, baseline="base")[0]
    return paired if paired.pairs else None


def interval(mean: float, low: float | None, high: float | None) -> str:
    """Return the mean difference and, from two pairs on, its confidence interval."""
    return f"{mean:+.4f}" + ("" if low is None else f" [{low:+.4f}, {high:+.4f}]")


def in_words(paired: PairedDifference | None) -> str:
    """Return mean difference, interval, wins and losses."""
    if paired is None:
        return "No pair of LAMP and base yet."
    p = "" if paired.p is None else f", Wilcoxon p = {paired.p:.3f}"
    return (
        f"LAMP - base over {paired.pairs} pairs: {interval(paired.mean, paired.low, paired.high)}, "
        f"wins {paired.wins}, ties {paired.ties}, losses {paired.losses}{p}."
    )


if __name__ == "__main__":
    auto_cli(main)
