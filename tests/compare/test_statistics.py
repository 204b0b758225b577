"""Statistics against plain loops, brute force and published examples, and what they do where something is missing."""

import itertools
import math
import re

import numpy as np
import pytest
from helpers import make_failed, make_metrics, make_record, make_sweep
from scipy import stats

from anomalib_lamp.compare.statistics import (
    MAX_EXACT_PAIRS,
    METRICS,
    bootstrap_interval,
    critical_difference,
    paired_differences,
    rank,
    spread,
    summarize,
    wilcoxon_p,
)

# Table 6 of Demsar 2006: AUC of C4.5 in four variants on 14 data sets. 0.9751 is printed as 0.975, equal to its
# neighbour, but the ranks beside them are 2 and 3.
DEMSAR_MODELS = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
DEMSAR_AUC = """
0.763 0.768 0.771 0.798
0.599 0.591 0.590 0.569
0.954 0.971 0.968 0.967
0.628 0.661 0.654 0.657
0.882 0.888 0.886 0.898
0.936 0.931 0.916 0.931
0.661 0.668 0.609 0.685
0.583 0.583 0.563 0.625
0.775 0.838 0.866 0.875
1.000 1.000 1.000 1.000
0.940 0.962 0.965 0.962
0.619 0.666 0.614 0.669
0.972 0.981 0.9751 0.975
0.957 0.978 0.946 0.970
"""


def demsar_records():
    rows = [[float(value) for value in line.split()] for line in DEMSAR_AUC.split("\n") if line]
    return [
        make_record(f"set{d:02}", model, quality=value, images=[])
        for d, row in enumerate(rows)
        for model, value in zip(DEMSAR_MODELS, row, strict=True)
    ]


def brute_force_wilcoxon(differences):
    """Return the share of all sign patterns whose rank sum is at least as far from its mean as the observed one."""
    differences = [value for value in differences if value != 0]
    ranks = stats.rankdata(np.abs(differences))
    centre = ranks.sum() / 2
    observed = abs(sum(r for r, d in zip(ranks, differences, strict=True) if d > 0) - centre)
    patterns = list(itertools.product([0, 1], repeat=len(ranks)))
    extreme = sum(abs(np.dot(pattern, ranks) - centre) >= observed - 1e-9 for pattern in patterns)
    return extreme / len(patterns)


def test_summary_equals_a_plain_loop():
    records = make_sweep(data_sets=2, models=2, seeds=4)
    for summary in summarize(records):
        for metric in METRICS:
            values = [
                getattr(record.metrics, metric)
                for record in records
                if (record.data, record.model) == (summary.data, summary.model)
            ]
            mean = sum(values) / len(values)
            std = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
            assert summary.metrics[metric].mean == pytest.approx(mean)
            assert summary.metrics[metric].std == pytest.approx(std)
            assert summary.metrics[metric].seeds == 4
    assert [(s.data, s.model) for s in summarize(records)] == [
        ("data00", "Model00"),
        ("data00", "Model01"),
        ("data01", "Model00"),
        ("data01", "Model01"),
    ]


def test_summary_counts_what_failed_and_what_was_not_measured():
    records = [
        make_record(seed=0),
        make_record(seed=1, metrics=make_metrics(0.8, pixel_AUROC=None)),
        make_failed(seed=2),
        make_failed(model="Broken"),
    ]
    broken, padim = summarize(records)
    assert (padim.finished, padim.failed, broken.finished, broken.failed) == (2, 1, 0, 1)
    assert (padim.metrics["image_AUROC"].seeds, padim.metrics["image_AUROC"].missing) == (2, 0)
    assert (padim.metrics["pixel_AUROC"].seeds, padim.metrics["pixel_AUROC"].missing) == (1, 1)
    assert padim.metrics["pixel_AUROC"].std is None
    assert broken.metrics["image_AUROC"] == spread([])
    assert summarize([]) == []


def test_two_records_of_the_same_cell_are_an_error():
    for statistic in (summarize, rank, lambda records: paired_differences(records, "PaDiM")):
        with pytest.raises(ValueError, match="one finished record of model 'PaDiM' on 'bottle' with seed 0, got 2"):
            statistic([make_record(), make_record()])
    assert summarize([make_failed(), make_record()])[0].failed == 1  # failed first, then run again: both are told


def test_comparison_pairs_by_data_and_seed():
    records = [
        make_record("bottle", "Ours", 0, quality=0.9),
        make_record("bottle", "Ours", 1, quality=0.7),
        make_record("bottle", "Ours", 2, quality=0.5),
        make_record("grid", "Ours", 0, quality=0.8),
        make_record("bottle", "Base", 0, quality=0.6),
        make_record("bottle", "Base", 1, quality=0.8),
        make_record("grid", "Base", 0, quality=0.8),
        make_failed("bottle", "Base", 2),
        make_failed("grid", "Ours", 1),
        make_failed("grid", "Base", 1),
    ]
    overall, bottle, grid = paired_differences(records, "Base")
    assert (overall.data, bottle.data, grid.data) == (None, "bottle", "grid")
    assert (overall.pairs, overall.unpaired) == (3, 1)
    assert (overall.wins, overall.ties, overall.losses) == (1, 1, 1)
    assert overall.mean == pytest.approx((0.3 - 0.1 + 0.0) / 3)
    assert bottle.mean == pytest.approx(0.1)
    assert (bottle.low, bottle.high) == pytest.approx((-0.1, 0.3))
    assert (grid.pairs, grid.mean, grid.low, grid.high, grid.p) == (1, 0, None, None, None)


def test_comparison_without_a_pair_has_no_numbers():
    (only,) = [c for c in paired_differences([make_record(model="A"), make_failed(model="B")], "B") if c.data is None]
    assert (only.pairs, only.unpaired, only.mean, only.low, only.high, only.p) == (0, 1, None, None, None, None)
    assert (only.wins, only.ties, only.losses) == (0, 0, 0)
    assert paired_differences([make_record()], "PaDiM") == []


def test_rounding_errors_are_ties():
    records = [make_record(model="A", quality=0.1 + 0.2), make_record(model="B", quality=0.3)]
    assert paired_differences(records, "B")[0].ties == 1


def test_unknown_names_are_errors():
    with pytest.raises(ValueError, match=r"baseline to be one of \['PaDiM'\], got 'Padim'"):
        paired_differences([make_record()], "Padim")
    with pytest.raises(ValueError, match=r"metric to be one of .*got 'auroc'"):
        rank([make_record()], "auroc")


def test_bootstrap_interval_equals_a_plain_loop():
    differences = np.random.default_rng(1).normal(0.1, 1, size=20)
    rng = np.random.default_rng(2)
    means = [np.mean([differences[i] for i in rng.integers(0, 20, size=20)]) for _ in range(9999)]
    low, high = bootstrap_interval(differences, 0.9)
    assert (low, high) == pytest.approx(tuple(np.quantile(means, [0.05, 0.95])), abs=0.03)
    assert bootstrap_interval(differences, 0.9) == (low, high)


def test_bootstrap_interval_of_little():
    assert bootstrap_interval([]) == (None, None)
    assert bootstrap_interval([0.3]) == (None, None)
    assert bootstrap_interval([0.3, 0.3, 0.3]) == (0.3, 0.3)
    assert bootstrap_interval([0.0, 0.0]) == (0.0, 0.0)


@pytest.mark.parametrize("count", range(1, 9))
def test_wilcoxon_equals_all_sign_patterns(count):
    rng = np.random.default_rng(count)
    for differences in (rng.normal(0.3, 1, size=count), rng.integers(-2, 4, size=count)):  # the second has ties
        if np.any(differences):
            assert wilcoxon_p(differences) == pytest.approx(brute_force_wilcoxon(differences))


@pytest.mark.parametrize("count", [3, 10, 30, MAX_EXACT_PAIRS, MAX_EXACT_PAIRS + 1])
def test_wilcoxon_equals_scipy_without_ties(count):
    differences = np.random.default_rng(count).normal(0.2, 1, size=count)
    assert wilcoxon_p(differences) == pytest.approx(stats.wilcoxon(differences).pvalue)


def test_wilcoxon_without_a_difference_is_undefined():
    assert wilcoxon_p([]) is None
    assert wilcoxon_p([0.0, 0.0]) is None
    assert wilcoxon_p([0.0, 0.1]) == 1.0


@pytest.mark.parametrize(
    ("models", "q05", "q10"),
    [(2, 1.960, 1.645), (3, 2.343, 2.052), (4, 2.569, 2.291), (5, 2.728, 2.459), (10, 3.164, 2.920)],
)
def test_critical_difference_has_demsars_q_values(models, q05, q10):
    for alpha, q in ((0.05, q05), (0.10, q10)):
        expected = q * math.sqrt(models * (models + 1) / (6 * 20))
        assert critical_difference(models, 20, alpha) == pytest.approx(expected, rel=1e-3)


def test_ranking_reproduces_demsars_example():
    ranking = rank(demsar_records())
    assert {model: round(value, 3) for model, value in ranking.ranks.items()} == {
        "C4.5": 3.143,
        "C4.5+m": 2.0,
        "C4.5+cf": 2.893,
        "C4.5+m+cf": 1.964,
    }
    assert next(iter(ranking.ranks)) == "C4.5+m+cf"
    assert ranking.critical_difference == pytest.approx(1.25, abs=0.005)
    mean_ranks = np.array(list(ranking.ranks.values()))
    chi2 = 12 * 14 / (4 * 5) * (np.sum(mean_ranks**2) - 4 * 5**2 / 4)
    assert chi2 == pytest.approx(9.28, abs=0.01)  # his, without SciPy's correction for ties, which makes p smaller
    assert 0.005 < ranking.friedman_p < stats.chi2.sf(chi2, 3)
    assert len(ranking.data) == 14
    assert ranking.why_not is None


def test_ranking_averages_seeds_first():
    qualities = {"A": (0.9, 0.5), "B": (0.8, 0.8), "C": (0.6, 0.6)}
    records = [
        make_record(f"set{d}", model, seed, quality=value)
        for d in range(5)
        for model, values in qualities.items()
        for seed, value in enumerate(values)
    ]
    assert rank(records).ranks == {"B": 1.0, "A": 2.0, "C": 3.0}


def test_ranking_of_equal_models_has_no_p():
    ranking = rank([make_record(f"set{d}", model) for d in range(5) for model in "ABC"])
    assert ranking.ranks == {"A": 2.0, "B": 2.0, "C": 2.0}
    assert ranking.friedman_p is None


def test_ranking_leaves_out_what_is_incomplete_and_names_it():
    records = [make_record(f"set{d}", model) for d in range(7) for model in "ABC"]
    records = [record for record in records if (record.data, record.model) != ("set6", "C")]
    records += [make_record("set0", "D"), make_failed("set1", "D")]
    ranking = rank(records)
    assert set(ranking.ranks) == {"A", "B", "C"}
    assert (ranking.left_out_models, ranking.left_out_data) == (("D",), ("set6",))


@pytest.mark.parametrize(
    ("data_sets", "models", "told"),
    [(5, 2, "2 model.*5 data"), (4, 3, "3 model.*4 data"), (0, 0, "0 model")],
)
def test_ranking_says_why_not(data_sets, models, told):
    ranking = rank(make_sweep(data_sets, models, seeds=1))
    assert ranking.ranks == {}
    assert ranking.critical_difference is None
    assert re.search(told, ranking.why_not)
