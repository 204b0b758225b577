"""Statistics of records: spread over seeds, paired differences from a baseline, ranking over data sets."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from anomalib_lamp.compare.records import Metrics, Record, finished

METRICS = tuple(Metrics.model_fields)
MIN_RANKED_MODELS = 3
MIN_RANKED_DATA_SETS = 5
BOOTSTRAP_RESAMPLES = 9999
MAX_EXACT_PAIRS = 50
ROUNDING_DIGITS = 9  # differences are rounded to it: 0.3 - 0.2 and 0.2 - 0.1 are a tie of ranks, and 1e-17 is no win

Values = dict[str, dict[tuple[str, int], float]]


@dataclass(frozen=True)
class Spread:
    """A metric over seeds.

    Attributes:
        mean: Mean; ``None`` without values.
        std: Standard deviation of a sample (ddof 1); ``None`` with fewer than two values.
        seeds: How many values there are.
        missing: How many finished jobs have no value.
    """

    mean: float | None
    std: float | None
    seeds: int
    missing: int


@dataclass(frozen=True)
class Summary:
    """One model on one data set: counts of its jobs, and each metric over the finished ones."""

    data: str
    model: str
    finished: int
    failed: int
    metrics: dict[str, Spread]


@dataclass(frozen=True)
class PairedDifference:
    """Differences ``model - baseline`` of a metric, paired by data set and seed.

    Attributes:
        model: The model.
        baseline: What it is compared with.
        metric: The metric; more is better.
        data: The data set; ``None`` for all together.
        pairs: How many (data, seed) have a value of both.
        unpaired: How many (data, seed) have a value of only one of the two, because a job failed or was not run.
        mean: Mean difference; ``None`` without pairs.
        low: Lower end of the bootstrap confidence interval; ``None`` with fewer than two pairs.
        high: Upper end of it.
        p: Two-sided p value of the Wilcoxon signed-rank test; ``None`` if no pair differs.
        wins: Pairs in which the model is better.
        ties: Pairs in which both are equal.
        losses: Pairs in which the baseline is better.
    """

    model: str
    baseline: str
    metric: str
    data: str | None
    pairs: int
    unpaired: int
    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True)
class Ranking:
    """Models ranked on the data sets that all of them have results on, seeds averaged first.

    Attributes:
        metric: The metric; more is better.
        ranks: Mean rank of each model, 1 is best, best first; empty if there is too little to rank.
        data: The data sets.
        left_out_models: Models without a result on one of these data sets.
        left_out_data: Data sets on which one of these models has no result.
        friedman_p: p value of the Friedman test that all models are equal; ``None`` if all are equal everywhere.
        critical_difference: Mean ranks that lie less than this apart are not told apart by the Nemenyi test.
        why_not: Why there is no ranking; ``None`` if there is one.
    """

    metric: str
    ranks: dict[str, float]
    data: tuple[str, ...] = ()
    left_out_models: tuple[str, ...] = ()
    left_out_data: tuple[str, ...] = ()
    friedman_p: float | None = None
    critical_difference: float | None = None
    why_not: str | None = None


def summarize(records: Sequence[Record]) -> list[Summary]:
    """Return mean, standard deviation and count of every metric for each data set and model, in this order.

    Raises:
        ValueError: If two finished records have the same data set, model and seed.
    """
    check_unique(records)
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.data, record.model), []).append(record)
    summaries = []
    for (data, model), group in sorted(groups.items()):
        done = finished(group)
        metrics = {metric: spread([metric_of(record, metric) for record in done]) for metric in METRICS}
        summaries.append(Summary(data, model, len(done), len(group) - len(done), metrics))
    return summaries


def spread(values: Iterable[float | None]) -> Spread:
    """Return mean, standard deviation (ddof 1) and counts of values, some of which may be missing.

    Example:
        >>> spread([0.5, None, 0.7])
        Spread(mean=0.6, std=0.1414..., seeds=2, missing=1)
    """
    values = list(values)
    known = [value for value in values if value is not None]
    mean = float(np.mean(known)) if known else None
    std = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return Spread(mean, std, len(known), len(values) - len(known))


def paired_differences(
    records: Sequence[Record],
    baseline: str,
    metric: str = "image_AUROC",
    confidence: float = 0.95,
) -> list[PairedDifference]:
    """Return every other model against the baseline: over all data sets first, then on each.

    Args:
        records: Records of a sweep; failed ones and missing values leave pairs incomplete, which are counted.
        baseline: Name of the model to compare with.
        metric: Name of the metric.
        confidence: Of the bootstrap interval, in (0, 1).

    Raises:
        ValueError: If the metric or the baseline is unknown, or two finished records have the same data set, model and
            seed.
    """
    values = values_of(records, metric)
    if baseline not in values:
        msg = f"Expected baseline to be one of {sorted(values)}, got {baseline!r}."
        raise ValueError(msg)
    differences = []
    for model in sorted(values.keys() - {baseline}):
        keys = sorted(values[model].keys() | values[baseline].keys())
        for data in [None, *sorted({data for data, _ in keys})]:
            of_data = [key for key in keys if data in (None, key[0])]
            differences.append(_paired_difference(values, model, baseline, metric, data, of_data, confidence))
    return differences


def _paired_difference(
    values: Values,
    model: str,
    baseline: str,
    metric: str,
    data: str | None,
    keys: list[tuple[str, int]],
    confidence: float,
) -> PairedDifference:
    """Return the paired difference of two models over (data, seed) keys that at least one of them has."""
    ours, theirs = values[model], values[baseline]
    paired = [key for key in keys if key in ours and key in theirs]
    differences = np.array([ours[key] - theirs[key] for key in paired]).round(ROUNDING_DIGITS)
    low, high = bootstrap_interval(differences, confidence)
    return PairedDifference(
        model,
        baseline,
        metric,
        data,
        pairs=len(paired),
        unpaired=len(keys) - len(paired),
        mean=float(differences.mean()) if paired else None,
        low=low,
        high=high,
        p=wilcoxon_p(differences),
        wins=int((differences > 0).sum()),
        ties=int((differences == 0).sum()),
        losses=int((differences < 0).sum()),
    )


def bootstrap_interval(
    differences: ArrayLike, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float] | tuple[None, None]:
    """Return the percentile bootstrap interval of the mean, the same at every call.

    The percentile interval is defined for identical values too, where it is a point; with few values it is too narrow.

    Args:
        differences: Values, shape (N,).
        confidence: In (0, 1).
        seed: Of the resampling.

    Returns:
        Lower and upper end; ``None`` twice with fewer than two values, which tell nothing about their spread.

    Example:
        >>> bootstrap_interval([0.1, 0.1, 0.1])
        (0.1, 0.1)
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return None, None
    result = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=BOOTSTRAP_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return round(float(low), ROUNDING_DIGITS), round(float(high), ROUNDING_DIGITS)


def wilcoxon_p(differences: ArrayLike) -> float | None:
    """Return the two-sided p value of the Wilcoxon signed-rank test; ``None`` if no difference is left.

    Zeros are dropped. Up to 50 differences it is exact, ties of ranks included, by adding up the distribution of the
    rank sum over all signs; equivalent to :func:`scipy.stats.wilcoxon`, which needs seconds for that. Above, it is
    SciPy's normal approximation.

    Args:
        differences: Values, shape (N,).

    Example:
        >>> wilcoxon_p([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])  # the smallest that six pairs can give: 2 / 2^6
        0.03125
    """
    values = np.asarray(differences, dtype=float)
    values = values[values != 0]
    if len(values) == 0:
        return None
    if len(values) > MAX_EXACT_PAIRS:
        return float(stats.wilcoxon(values, method="asymptotic").pvalue)
    doubled_ranks = (2 * stats.rankdata(np.abs(values))).astype(int)  # whole numbers with ties too
    ways = np.zeros(doubled_ranks.sum() + 1)  # ways[s]: how many choices of signs have a positive rank sum of s / 2
    ways[0] = 1
    for doubled_rank in doubled_ranks:
        ways[doubled_rank:] += ways[:-doubled_rank].copy()
    observed = doubled_ranks[values > 0].sum()
    tail = min(ways[: observed + 1].sum(), ways[observed:].sum())
    return min(1.0, float(2 * tail / ways.sum()))


def rank(records: Sequence[Record], metric: str = "image_AUROC", alpha: float = 0.05) -> Ranking:
    """Return the mean rank of models over data sets, with the Friedman and the Nemenyi test.

    Where results are missing, the models with the fewest data sets are left out as long as that leaves more results to
    rank; what is left out is named.

    Args:
        records: Records of a sweep.
        metric: Name of the metric.
        alpha: Level of the critical difference, in (0, 1).

    Source: Demsar 2006, Statistical comparisons of classifiers over multiple data sets, JMLR 7.
    """
    means = {
        model: {data: float(np.mean(of_seeds)) for data, of_seeds in _by_data(values).items()}
        for model, values in values_of(records, metric).items()
    }
    all_data = set().union(*means.values())
    models, data = _most_complete(means)
    if not models:
        widest = len(set.intersection(*map(set, means.values()))) if means else 0
        why_not = (
            f"A ranking needs at least {MIN_RANKED_MODELS} models with results on the same "
            f"{MIN_RANKED_DATA_SETS} or more data sets; "
            f"there are {len(means)} model(s), with {widest} data set(s) in common."
        )
        return Ranking(metric, {}, why_not=why_not)
    table = np.array([[means[model][name] for model in models] for name in data]).round(ROUNDING_DIGITS)
    ranks = stats.rankdata(-table, axis=1).mean(axis=0)
    best_first = sorted(zip(ranks.tolist(), models, strict=True))
    same = bool((table == table[:, :1]).all())
    return Ranking(
        metric,
        {model: mean_rank for mean_rank, model in best_first},
        data=tuple(data),
        left_out_models=tuple(sorted(means.keys() - set(models))),
        left_out_data=tuple(sorted(all_data - set(data))),
        friedman_p=None if same else float(stats.friedmanchisquare(*table.T).pvalue),
        critical_difference=critical_difference(len(models), len(data), alpha),
    )


def _by_data(values: dict[tuple[str, int], float]) -> dict[str, list[float]]:
    """Return the values of each data set, over seeds."""
    grouped: dict[str, list[float]] = {}
    for (data, _), value in sorted(values.items()):
        grouped.setdefault(data, []).append(value)
    return grouped


def _most_complete(means: dict[str, dict[str, float]]) -> tuple[list[str], list[str]]:
    """Return models and the data sets they share, the most results that taking the most complete models first gives."""
    order = sorted(means, key=lambda model: (-len(means[model]), model))
    best: tuple[list[str], list[str]] = ([], [])
    for count in range(MIN_RANKED_MODELS, len(order) + 1):
        models = order[:count]
        data = sorted(set.intersection(*(set(means[model]) for model in models)))
        if len(data) >= MIN_RANKED_DATA_SETS and count * len(data) >= len(best[0]) * len(best[1]):
            best = (models, data)
    return best


def critical_difference(models: int, data_sets: int, alpha: float = 0.05) -> float:
    r"""Return the critical difference of the Nemenyi test, :math:`q_\alpha \sqrt{k (k + 1) / (6 N)}`.

    Args:
        models: :math:`k`, at least 2.
        data_sets: :math:`N`, at least 1.
        alpha: Level, in (0, 1).

    Example:
        >>> round(critical_difference(4, 14), 2)  # Demsar's example
        1.25
    """
    q = stats.studentized_range.ppf(1 - alpha, models, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(models * (models + 1) / (6 * data_sets)))


def values_of(records: Sequence[Record], metric: str) -> Values:
    """Return ``{model: {(data, seed): value}}`` of a metric: every model, also one that has no value.

    Raises:
        ValueError: If the metric is unknown, or two finished records have the same data set, model and seed.
    """
    if metric not in METRICS:
        msg = f"Expected metric to be one of {list(METRICS)}, got {metric!r}."
        raise ValueError(msg)
    check_unique(records)
    values: Values = {record.model: {} for record in records}
    for record in finished(records):
        value = metric_of(record, metric)
        if value is not None:
            values[record.model][record.data, record.seed] = value
    return values


def metric_of(record: Record, metric: str) -> float | None:
    """Return a metric of a record; ``None`` if it was not measured."""
    return None if record.metrics is None else getattr(record.metrics, metric)


def check_unique(records: Iterable[Record]) -> None:
    """Raise ValueError if two finished records have the same data set, model and seed: which one counts?"""
    counts = Counter((record.data, record.model, record.seed) for record in finished(records))
    for (data, model, seed), count in counts.items():
        if count > 1:
            msg = (
                f"Expected one finished record of model {model!r} on {data!r} with seed {seed}, got {count}. "
                "Give models that differ different names, and remove lines that stand twice."
            )
            raise ValueError(msg)
