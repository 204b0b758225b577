"""What a report picks from its records: the baseline and the seed to show."""

from helpers import make_record

from anomalib_lamp.compare.statistics import summarize
from anomalib_lamp.report.selection import choose_baseline, median_records


def test_baseline_is_the_named_one_or_the_most_complete():
    records = [make_record(model="A", seed=seed, quality=0.7) for seed in range(3)]
    records += [make_record(model="B", seed=seed, quality=0.6) for seed in range(3)]
    records += [make_record(model="C", seed=0, quality=0.9)]
    assert choose_baseline(summarize(records), "C")[0] == "C"
    assert choose_baseline(summarize(records), None)[0] == "A"


def test_median_records_take_the_median_seed():
    records = [make_record(seed=seed, quality=quality) for seed, quality in enumerate((0.9, 0.7, 0.8, 0.6))]
    assert [record.seed for record in median_records(records)] == [1]
