"""The figures: what they draw, and what their captions say of the rest."""

import re

from helpers import make_cost, make_origin, make_record, make_sweep

from anomalib_lamp.compare.statistics import rank
from anomalib_lamp.report.figures import MAX_CURVES, cost_figures, rank_figures, roc_figures


def number_of(records):
    """Return the numbers of the models, in the order of their names."""
    return {model: number for number, model in enumerate(sorted({record.model for record in records}), start=1)}


def test_roc_curves_are_of_the_first_models():
    records = make_sweep(data_sets=2, models=MAX_CURVES + 1, seeds=1)
    captions = [figure.caption for figure in roc_figures(records, number_of(records))]
    assert captions == ["data00 (8 of 9 models)", "data01 (8 of 9 models)"]
    assert [figure.caption for figure in roc_figures(records[:2], number_of(records))] == ["data00"]
    assert roc_figures([make_record(images=[])], {"PaDiM": 1}) == ()


def test_cost_figures_do_not_mix_machines():
    fast = make_origin(device="cuda:0")
    records = [
        make_record("bottle", "A"),
        make_record("cable", "A"),
        make_record("bottle", "B"),
        make_record("cable", "B", cost=make_cost(1.0, peak_gpu_mib=2000.0), origin=fast),
    ]
    latency, memory = [figure.caption for figure in cost_figures(records, number_of(records))]
    rest = (
        "up and to the left is better. Hollow: a model that lacks some data sets. "
        "Measured on Intel Xeon, 2 cores, cpu, 2 threads; 1 jobs of other machines are left out."
    )
    assert latency == f"Quality against latency of one image; {rest}"
    assert memory == f"Quality against peak memory of the job; {rest}"
    (_, memory) = cost_figures(records[3:], number_of(records))
    assert memory.caption == "Quality against peak GPU memory; up and to the left is better."
    assert cost_figures([make_record(cost=None)], {"PaDiM": 1}) == ()


def test_ranks_are_drawn_only_where_there_is_a_ranking():
    records = make_sweep(data_sets=9, models=3, seeds=1)
    assert len(rank_figures(rank(records), number_of(records))) == 1
    assert rank_figures(rank(records[:2]), number_of(records)) == ()


def test_figures_share_no_ids():
    records = make_sweep(data_sets=9, models=3, seeds=1)
    numbers = number_of(records)
    figures = [*roc_figures(records, numbers), *cost_figures(records, numbers), *rank_figures(rank(records), numbers)]
    ids = [name for figure in figures for name in re.findall(r' id="([^"]*)"', figure.svg)]
    assert len(ids) == len(set(ids)) > 0
