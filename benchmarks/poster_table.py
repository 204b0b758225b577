"""Sets a sweep beside the LAMP poster's table of the same runs, with paired statistics.

python benchmarks/poster_table.py results/compare/poster_mvtec mvtec > table.md    (Table 2)
python benchmarks/poster_table.py results/compare/poster_mnist mnist > table.md    (Table 1)
"""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Literal

import pandas as pd
from jsonargparse import auto_cli

from anomalib_lamp.benchmark.records import Record, finished, read_records
from anomalib_lamp.benchmark.statistics import Comparison, compare

POSTER = Path(__file__).parent / "poster"


def of_data(record: Record, argument: str) -> object:
    return record.config["data"]["init_args"][argument]


# What a job has in the columns that name a row of the poster's table.
ROW_OF: dict[str, Callable[[Record], tuple]] = {
    "mvtec": lambda record: (of_data(record, "category"), record.grid["base_loss"], record.grid["optimizer"]),
    "mnist": lambda record: (of_data(record, "train_batch_size"),),
}


def main(results: Path, table: Literal["mvtec", "mnist"]) -> None:
    """Print the table and what amplification changes over all pairs.

    Args:
        results: Folder of the sweep or its results.jsonl.
        table: Which table of the poster.
    """
    print(beside_the_poster(read_records(results), table))


def beside_the_poster(records: list[Record], table: Literal["mvtec", "mnist"]) -> str:
    """Return the table, rows without a result left out, and in words what amplification changes over all pairs."""
    row_of, records = ROW_OF[table], finished(records)
    poster = pd.read_csv(POSTER / f"{table}.csv")
    head = [*poster.columns[:-2], "base", "LAMP", "LAMP - base", "pairs", "poster, base", "poster, LAMP"]
    rows = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for *names, base, lamp in poster.itertuples(index=False):
        of_row = [record for record in records if row_of(record) == tuple(names)]
        if of_row:
            rows.append(f"| {' | '.join(map(str, [*names, *figures(of_row, row_of), base, lamp]))} |")
    return "\n".join([*rows, "", in_words(difference(records, row_of))])


def figures(records: list[Record], row_of: Callable[[Record], tuple]) -> list[str]:
    """Return a row's means without and with amplification, their difference and its interval, the number of pairs."""
    means = []
    for amplify in (False, True):
        values = [record.metrics.image_AUROC for record in records if record.grid["amplify"] is amplify]
        means.append(f"{fmean(values):.3f}" if values else "")
    paired = difference(records, row_of)
    return [*means, interval(paired), str(paired.pairs)] if paired else [*means, "", "0"]


def difference(records: list[Record], row_of: Callable[[Record], tuple]) -> Comparison | None:
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
    paired = compare(renamed, baseline="base")[0]
    return paired if paired.pairs else None


def interval(paired: Comparison) -> str:
    """Return the mean difference and, from two pairs on, its confidence interval."""
    return f"{paired.mean:+.4f}" + ("" if paired.low is None else f" [{paired.low:+.4f}, {paired.high:+.4f}]")


def in_words(paired: Comparison | None) -> str:
    """Return mean difference, interval, wins and losses."""
    if paired is None:
        return "No pair of LAMP and base yet."
    p = "" if paired.p is None else f", Wilcoxon p = {paired.p:.3f}"
    return (
        f"LAMP - base over {paired.pairs} pairs: {interval(paired)}, "
        f"wins {paired.wins}, ties {paired.ties}, losses {paired.losses}{p}."
    )


if __name__ == "__main__":
    auto_cli(main)
