"""Drift: false alarms at the stated rate, shifts found, probabilities against all orders and against SciPy."""

import itertools
import math

import numpy as np
import pytest
from anomalib_lamp_runtime.drift import QUANTITIES, Drift, critical_distance, ks_distance, ks_probability
from scipy import stats

WINDOW, REFERENCE, RATE = 30, 60, 0.05
INSTALLATIONS = 2000


def by_quantity(values):
    """Return three values, or lists of values, by their names."""
    return dict(zip(QUANTITIES, values, strict=True))


def first_window(generator, shift=None, drawn=None):
    """Return what the first window of an installation with a reference of its own reports."""
    drawn = drawn or generator.normal
    drift = Drift(by_quantity(drawn(size=(3, REFERENCE))), WINDOW, RATE)
    parts = drawn(size=(WINDOW, 3)) + [name == shift for name in QUANTITIES]
    found = [drift.add(by_quantity(part)) for part in parts]
    assert found[:-1] == [None] * (WINDOW - 1)
    return [change.quantity for change in found[-1]]


@pytest.mark.parametrize(("n", "m"), [(3, 4), (5, 5), (2, 7)])
def test_probability_is_the_share_of_all_orders_that_reach_the_distance(n, m):
    distances = []
    for places in itertools.combinations(range(n + m), n):
        others = sorted(set(range(n + m)) - set(places))
        distances.append(round(ks_distance(np.array(places, float), np.array(others, float)) * n * m))
    for distance in range(1, n * m + 1):
        share = np.mean(np.array(distances) >= distance)
        assert math.isclose(ks_probability(n, m, distance), share, abs_tol=1e-12)


@pytest.mark.parametrize(("n", "m"), [(60, 30), (97, 50), (200, 50)])
def test_distance_and_probability_are_those_of_scipy(n, m):
    generator = np.random.default_rng(0)
    for shift in (0, 0.3, 0.6):
        first, second = np.sort(generator.normal(size=n)), np.sort(generator.normal(shift, size=m))
        expected = stats.ks_2samp(first, second, method="exact")
        distance = ks_distance(first, second)
        assert math.isclose(distance, expected.statistic, abs_tol=1e-12)
        assert math.isclose(ks_probability(n, m, round(distance * n * m)), expected.pvalue, rel_tol=1e-9)


def test_critical_distance_is_the_smallest_at_the_level():
    step = math.gcd(60, 30)
    distance = round(critical_distance(60, 30, 0.01) * 60 * 30)
    assert ks_probability(60, 30, distance) <= 0.01 < ks_probability(60, 30, distance - step)


def test_false_alarms_lie_in_the_binomial_interval_of_the_stated_rate():
    generator = np.random.default_rng(0)
    alarms = sum(bool(first_window(generator)) for _ in range(INSTALLATIONS))
    limit = critical_distance(REFERENCE, WINDOW, RATE / 3)
    attained = 1 - (1 - ks_probability(REFERENCE, WINDOW, round(limit * REFERENCE * WINDOW))) ** 3
    assert 0.7 * RATE < attained <= RATE  # distances are fractions, so that the rate is not reached exactly
    low, high = stats.binom.interval(0.999, INSTALLATIONS, attained)
    assert low <= alarms <= high


def test_ties_raise_no_more_alarms():
    generator = np.random.default_rng(0)
    coarse = lambda size: np.round(generator.normal(size=size))  # noqa: E731
    alarms = sum(bool(first_window(generator, drawn=coarse)) for _ in range(INSTALLATIONS // 4))
    assert alarms <= stats.binom.ppf(0.999, INSTALLATIONS // 4, RATE)


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_shift_by_one_standard_deviation_is_found_and_named(quantity):
    generator = np.random.default_rng(0)
    found = [first_window(generator, quantity) for _ in range(200)]
    assert sum(quantity in names for names in found) >= 170
    assert sum(names == [quantity] for names in found) >= 165


def test_default_window_and_rate_find_one_standard_deviation_with_a_hundred_references():
    generator = np.random.default_rng(0)
    found = []
    for _ in range(200):
        drift = Drift(by_quantity(generator.normal(size=(3, 100))))
        parts = generator.normal([1, 0, 0], size=(drift.window, 3))
        found.append([drift.add(by_quantity(part)) for part in parts][-1])
    assert sum("score" in [change.quantity for change in changes] for changes in found) >= 190


def test_windows_do_not_overlap():
    drift = Drift({"score": range(20)}, window=10, rate=0.01)
    for value in (100, 10):  # a shifted window after which all is well again
        found = [drift.add({"score": value + part % 5}) for part in range(10)]
        assert found[:-1] == [None] * 9
        assert [change.quantity for change in found[-1]] == (["score"] if value == 100 else [])
        assert drift.shifts == found[-1]
    assert drift.windows == 2


def test_shift_tells_both_medians_in_words_and_numbers():
    drift = Drift({"sharpness": [4, 5, 6] * 9, "score": [1, 2, 3] * 9}, window=9, rate=0.01)
    (change,) = [drift.add({"sharpness": 1, "score": part % 3 + 1}) for part in range(9)][-1]
    assert change.as_dict() == {
        "quantity": "sharpness",
        "distance": 1.0,
        "limit": round(critical_distance(27, 9, 0.005), 6),
        "reference_median": 5.0,
        "window_median": 1.0,
    }
    assert str(change).startswith("sharpness has moved: its median is 1, 5 on the normal images of the export")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"reference": {}}, "got none"),
        ({"reference": {"score": [1.0, math.nan]}}, "finite numbers as reference of score"),
        ({"reference": {"score": [1.0]}}, "got 1 reference values and windows of 100 parts"),
        ({"reference": {"score": []}}, "got 0 reference values"),
        ({"reference": {"score": range(50)}, "window": 0}, "at least 1 part"),
        ({"reference": {"score": range(50)}, "rate": 1}, "between 0 and 1"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        Drift(**arguments)
