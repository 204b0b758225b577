"""The tables: their numbers, counts and marks."""

import pytest
from helpers import KINDS, make_cost, make_failed, make_images, make_metrics, make_origin, make_record, make_sweep
from sklearn.metrics import roc_auc_score

from anomalib_lamp.compare.statistics import rank, summarize
from anomalib_lamp.report import compact_table, render_table, tables


def cells(table, *columns):
    """Return the texts of some columns of a table."""
    labels = [column.label for column in table.columns]
    return [tuple(row[labels.index(column)].text for column in columns) for row in table.rows]


def test_quality_marks_the_best_and_counts_seeds():
    records = [
        make_record(model="A", seed=0, quality=0.9),
        make_record(model="A", seed=1, metrics=make_metrics(0.8, pixel_AUROC=None)),
        make_failed(model="A", seed=2),
        make_record(model="B", quality=0.95),
    ]
    table = tables.quality(summarize(records))
    assert cells(table, "model", "seeds", "image AUROC", "pixel AUROC") == [
        ("A", "2 (1 failed)", "0.850 ± 0.071", "0.882 [1]"),
        ("B", "1", "0.950", "0.931"),
    ]
    assert [row[3].mark for row in table.rows] == ["", "best"]


def test_ranking_says_what_is_told_apart():
    table = tables.ranking(rank(make_sweep(data_sets=9, models=3, seeds=1)))
    assert cells(table, "model", "against the best")[0] == ("Model02", "best")
    assert table.rows[-1][2].text == "worse than the best"


def test_costs_do_not_mix_machines():
    fast = make_origin(device="cuda:0")
    records = [
        make_record(seed=0, cost=make_cost(10.0)),
        make_record(seed=1, cost=make_cost(30.0)),
        make_record(seed=2, cost=make_cost(1.0, peak_gpu_mib=2000.0), origin=fast),
    ]
    assert cells(tables.costs(records[:2]), "seeds", "batch 1, ms (IQR)", "peak RAM, MiB") == [
        ("2", "20.0 (1.00)", "1,500")
    ]
    table = tables.costs(records)
    assert cells(table, "machine", "batch 1, ms (IQR)", "peak GPU, MiB", "parameters, M") == [
        ("Intel Xeon, 2 cores, cpu, 2 threads", "20.0 (1.00)", "–", "2.80"),
        ("Intel Xeon, 2 cores, cuda:0, 2 threads", "1.00 (0.05)", "2,000", "2.80"),
    ]


def test_defects_equal_scikit_learn():
    (table,) = tables.defects([make_record(seed=seed, images=make_images(0.8, seed)) for seed in range(2)])
    for kind, cell in zip(KINDS, table.rows[0][1:], strict=True):
        expected = [
            roc_auc_score([image.anomalous for image in images], [image.score for image in images])
            for seed in range(2)
            for images in [[image for image in make_images(0.8, seed) if image.kind in (kind, "good")]]
        ]
        assert cell.value == pytest.approx(sum(expected) / 2)


def test_compact_table_has_the_mean_of_shared_data_sets():
    records = [
        make_record("bottle", "A", 0, quality=0.9),
        make_record("bottle", "A", 1, quality=0.8),
        make_record("bottle", "B", quality=0.7),
        make_record("cable", "A", quality=0.5),
        make_record("cable", "B", quality=0.6),
        make_record("grid", "A", quality=0.1),
        make_failed("grid", "B"),
    ]
    expected = """
| data | A | B |
|---|--:|--:|
| bottle | **0.850 ± 0.071** | 0.700 |
| cable | 0.500 | **0.600** |
| grid | **0.100** | – |
| mean of 2 | **0.675** | 0.650 |
"""
    assert render_table(compact_table(records)) == expected.strip()
    assert render_table(compact_table(records, models=["B"])).splitlines()[0] == "| data | B |"
    with pytest.raises(ValueError, match=r"models with records, \['A', 'B'\], got \['C'\]"):
        compact_table(records, models=["C"])
