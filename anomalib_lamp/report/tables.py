"""The tables of a report, computed from the records."""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime

import numpy as np

from anomalib_lamp.auroc import auroc
from anomalib_lamp.compare.records import Latency, Record, finished
from anomalib_lamp.compare.statistics import (
    METRICS,
    PairedDifference,
    Ranking,
    Spread,
    Summary,
    spread,
    summarize,
)
from anomalib_lamp.report.elements import DASH, Cell, Column, Table, number, size, text
from anomalib_lamp.report.selection import model_means, order_models

LABELS = {
    "image_AUROC": "image AUROC",
    "pixel_AUROC": "pixel AUROC",
    "AUPRO": "AUPRO",
    "image_F1": "image F1",
    "pixel_F1": "pixel F1",
}
METRIC_DIGITS = 3  # digits of a metric
MIN_PAIRS = 6  # with fewer, the Wilcoxon test cannot reach p = 0.05


def mean_std(value: Spread, expected: int | None = None, best: float | None = None) -> Cell:
    """Return a cell with mean ± standard deviation.

    Args:
        value: What to show.
        expected: Number of seeds; another one is shown in brackets.
        best: The best rounded mean; every mean that rounds to it is marked.
    """
    if value.mean is None:
        return Cell(DASH)
    shown = f"{value.mean:.{METRIC_DIGITS}f}" + ("" if value.std is None else f" ± {value.std:.{METRIC_DIGITS}f}")
    if expected is not None and value.seeds != expected:
        shown += f" [{value.seeds}]"
    return Cell(shown, value.mean, "best" if round(value.mean, METRIC_DIGITS) == best else "")


def measured(summaries: Iterable[Summary]) -> tuple[str, ...]:
    """Return the metrics that have a value anywhere."""
    summaries = list(summaries)
    return tuple(metric for metric in METRICS if any(summary.metrics[metric].seeds for summary in summaries))


def overview(summaries: Sequence[Summary]) -> Table:
    """Return one row per model: its counts, and each metric as mean over data sets."""
    metrics = measured(summaries)
    means = {metric: model_means(summaries, metric) for metric in metrics}
    rows = []
    for model in order_models(summaries):
        of_model = [summary for summary in summaries if summary.model == model]
        counts = [
            sum(summary.finished > 0 for summary in of_model),
            sum(summary.finished for summary in of_model),
            sum(summary.failed for summary in of_model),
        ]
        cells = [number(count, "d") for count in counts[:2]]
        cells.append(number(counts[2], "d", mark="bad" if counts[2] else ""))
        averages = [means[metric][model] for metric in metrics]
        cells += [number(float(np.mean(values)) if values else None) for values in averages]
        rows.append([text(model), *cells])
    columns = [Column("data sets"), Column("finished"), Column("failed"), *(Column(LABELS[name]) for name in metrics)]
    return Table("Models, mean over their data sets", (Column("model", numeric=False), *columns), rows)


def quality(summaries: Sequence[Summary]) -> Table:
    """Return one row per data set and model: each metric as mean ± std over seeds, the best of a data set marked."""
    metrics = measured(summaries)
    best: dict[tuple[str, str], float] = {}
    for summary in summaries:
        for metric in metrics:
            mean = summary.metrics[metric].mean
            if mean is not None:
                best[summary.data, metric] = max(round(mean, METRIC_DIGITS), best.get((summary.data, metric), 0.0))
    rows = []
    for summary in summaries:
        cells = [text(summary.data), text(summary.model), _seeds(summary)]
        for metric in metrics:
            value = summary.metrics[metric]
            cells.append(mean_std(value, summary.finished, best=best.get((summary.data, metric))))
        rows.append(cells)
    columns = (Column("data", numeric=False), Column("model", numeric=False), Column("seeds"))
    return Table("Quality", (*columns, *(Column(LABELS[metric]) for metric in metrics)), rows)


def _seeds(summary: Summary) -> Cell:
    """Return how many jobs finished, and how many failed."""
    if not summary.failed:
        return number(summary.finished, "d")
    return Cell(f"{summary.finished} ({summary.failed} failed)", summary.finished, "bad")


def compact_table(records: Sequence[Record], metric: str = "image_AUROC", models: Sequence[str] | None = None) -> Table:
    """Return data sets x models of one metric, mean ± std over seeds, for a README.

    The last row is the mean over the data sets that all these models have a result on.

    Args:
        records: Records of a sweep.
        metric: Name of the metric.
        models: The columns in their order; ``None`` takes all, the most complete and best first.

    Raises:
        ValueError: If a model has no record.
    """
    summaries = summarize(records)
    known = order_models(summaries)
    models = known if models is None else list(models)
    if unknown := [model for model in models if model not in known]:
        msg = f"Expected models with records, {known}, got {unknown}."
        raise ValueError(msg)
    cells = {(summary.data, summary.model): summary.metrics[metric] for summary in summaries}
    rows, shared = [], []
    for data in sorted({summary.data for summary in summaries}):
        of_data = [cells.get((data, model), spread([])) for model in models]
        means = [value.mean for value in of_data if value.mean is not None]
        best = round(max(means), METRIC_DIGITS) if means else None
        rows.append([text(data), *(mean_std(value, best=best) for value in of_data)])
        if len(means) == len(models):
            shared.append(means)
    if len(shared) > 1:
        averages = np.mean(shared, axis=0).round(METRIC_DIGITS).tolist()
        marks = ["best" if value == max(averages) else "" for value in averages]
        rows.append([text(f"mean of {len(shared)}"), *map(number, averages, [".3f"] * len(models), marks)])
    return Table(metric, (Column("data", numeric=False), *map(Column, models)), rows)


def failures(records: Iterable[Record]) -> Table:
    """Return one row per job without a result, with its error."""
    rows = [
        [
            text(record.data),
            text(record.model),
            number(record.seed, "d"),
            number(record.attempt, "d"),
            text(record.job),
            Cell(record.error or "no error recorded", mark="error"),
        ]
        for record in sorted(records, key=lambda record: (record.data, record.model, record.seed))
        if record.status != "finished"
    ]
    columns = (
        Column("data", numeric=False),
        Column("model", numeric=False),
        Column("seed"),
        Column("attempts"),
        Column("job", numeric=False),
        Column("error", numeric=False),
    )
    return Table("Failed jobs", columns, rows)


def differences(paired: Iterable[PairedDifference], by_data: bool) -> Table:
    """Return one row per paired difference: over all data sets with their metric, or of one metric on each data set."""
    rows = []
    for item in paired:
        if (item.data is not None) != by_data:
            continue
        interval = DASH if item.low is None else f"{item.low:+.3f} to {item.high:+.3f}"
        rows.append(
            [
                text(item.model),
                text(item.data if item.data is not None else LABELS[item.metric]),
                number(item.mean, "+.3f", _verdict(item)),
                Cell(interval, item.low),
                number(item.p, ".2g"),
                number(item.wins, "d"),
                number(item.ties, "d"),
                number(item.losses, "d"),
                number(item.pairs, "d"),
                number(item.unpaired, "d", "bad" if item.unpaired else ""),
            ]
        )
    columns = (
        Column("model", numeric=False),
        Column("data" if by_data else "metric", numeric=False),
        Column("difference"),
        Column("95 % interval"),
        Column("Wilcoxon p"),
        Column("wins"),
        Column("ties"),
        Column("losses"),
        Column("pairs"),
        Column("unpaired"),
    )
    return Table("Differences from the baseline" + (" on each data set" if by_data else ""), columns, rows)


def _verdict(item: PairedDifference) -> str:
    """Return the mark of a difference: a win or a loss if there are enough pairs and the interval excludes 0."""
    if item.low is None or item.high is None or item.pairs < MIN_PAIRS:
        return ""
    return "win" if item.low > 0 else "loss" if item.high < 0 else ""


def ranking(result: Ranking) -> Table:
    """Return one row per ranked model: its mean rank, and how far it is from the best."""
    best = min(result.ranks.values(), default=0.0)
    critical = result.critical_difference if result.critical_difference is not None else math.inf

    def comparison(value: float) -> str:
        if value == best:
            return "best"
        return "worse than the best" if value - best >= critical else "not told apart from the best"

    rows = [[text(model), number(value, ".2f"), text(comparison(value))] for model, value in result.ranks.items()]
    return Table(
        "Mean ranks",
        (Column("model", numeric=False), Column("mean rank"), Column("against the best", numeric=False)),
        rows,
    )


def costs(records: Sequence[Record]) -> Table:
    """Return one row per data set, model and device: time, memory and size of its finished jobs.

    Machines are never mixed; their column is left out where there is only one.
    """
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in finished(records):
        if record.cost is not None:
            groups.setdefault((record.data, record.model, place_of(record)), []).append(record)
    batches = sorted({item.batch_size for group in groups.values() for r in group for item in _latencies(r)})
    on_gpu = any(r.cost and r.cost.peak_gpu_mib is not None for group in groups.values() for r in group)
    several = len({place for _, _, place in groups}) > 1
    rows = []
    for (data, model, place), group in sorted(groups.items()):
        known = [record.cost for record in group if record.cost is not None]
        seconds = spread([cost.train_seconds for cost in known])
        train = size(seconds.mean)
        if seconds.std is not None:
            train = Cell(f"{train.text} ± {size(seconds.std).text}", seconds.mean)
        inputs = sorted({item.image_size for record in group for item in _latencies(record)})
        cells = [text(data), text(model), *([text(place)] if several else [])]
        cells += [text(", ".join(sorted({record.weights for record in group}))), number(len(group), "d"), train]
        cells += [_median([cost.steps for cost in known]), Cell(", ".join(map(str, inputs)) or DASH, _first(inputs))]
        cells += [_latency(group, batch) for batch in batches]
        cells.append(_median([cost.peak_rss_mib for cost in known]))
        if on_gpu:
            cells.append(_median([cost.peak_gpu_mib for cost in known]))
        parameters = _median([cost.parameters for cost in known]).value
        cells.append(size(None if parameters is None else parameters / 1e6))
        rows.append([*cells, _median([cost.exported_mib for cost in known])])
    columns = [Column("data", numeric=False), Column("model", numeric=False)]
    columns += [Column("machine", numeric=False)] if several else []
    columns += [Column("weights", numeric=False), Column("seeds"), Column("training, s"), Column("steps")]
    columns += [Column("input, px"), *(Column(f"batch {batch}, ms (IQR)") for batch in batches)]
    columns += [Column("peak RAM, MiB"), *([Column("peak GPU, MiB")] if on_gpu else [])]
    return Table("Cost", (*columns, Column("parameters, M"), Column("exported, MiB")), rows)


def place_of(record: Record) -> str:
    """Return what a time was measured on."""
    return f"{record.origin.machine}, {record.origin.device}, {record.origin.threads} threads"


def _latencies(record: Record) -> list[Latency]:
    return [] if record.cost is None else record.cost.latency


def _latency(group: Iterable[Record], batch: int) -> Cell:
    """Return the median over seeds of the median latency, and of its interquartile range."""
    items = [item for record in group for item in _latencies(record) if item.batch_size == batch]
    if not items:
        return Cell(DASH)
    middle = float(np.median([item.median_ms for item in items]))
    return Cell(f"{size(middle).text} ({size(float(np.median([item.iqr_ms for item in items]))).text})", middle)


def _median(values: Iterable[float | None]) -> Cell:
    """Return the median of what is known."""
    known = [value for value in values if value is not None]
    return size(float(np.median(known)) if known else None)


def _first(values: Sequence[int]) -> int | None:
    return values[0] if values else None


def defects(records: Sequence[Record]) -> list[Table]:
    """Return a table per data set: AUROC of each kind of defect against the good images, mean over seeds.

    The colour of a cell (``h0`` to ``h9``) goes from 0.5 and below to 1.
    """
    scores: dict[str, dict[str, dict[str, list[float | None]]]] = {}
    for record in finished(records):
        of_kinds = scores.setdefault(record.data, {}).setdefault(record.model, {})
        for kind in {image.kind for image in record.images if image.anomalous}:
            compared = [image for image in record.images if not image.anomalous or image.kind == kind]
            value = auroc([image.anomalous for image in compared], [image.score for image in compared])
            of_kinds.setdefault(kind, []).append(value)
    tables = []
    for data, of_models in sorted(scores.items()):
        kinds = sorted({kind for of_kinds in of_models.values() for kind in of_kinds})
        rows = []
        for model, of_kinds in sorted(of_models.items()):
            means = [spread(of_kinds.get(kind, [])).mean for kind in kinds]
            rows.append([text(model), *(number(mean, mark="" if mean is None else heat(mean)) for mean in means)])
        columns = (Column("model", numeric=False), *(Column(kind) for kind in kinds))
        tables.append(Table(data, columns, rows))
    return tables


def heat(value: float) -> str:
    """Return the mark of an AUROC: ``h0`` up to 0.5, ``h9`` for 1.

    Example:
        >>> heat(0.4), heat(0.75), heat(1.0)
        ('h0', 'h5', 'h9')
    """
    return f"h{min(9, max(0, int((value - 0.5) * 20)))}"


def origins(records: Sequence[Record]) -> Table:
    """Return one row per machine, device, Python and commit, with its jobs, versions and dates."""
    groups: dict[tuple[str, str, str, str], list[Record]] = {}
    for record in records:
        commit = record.origin.commit or "unknown"
        groups.setdefault((record.origin.machine, place_of(record), record.origin.python, commit), []).append(record)
    rows = []
    for (_, place, python, commit), group in sorted(groups.items()):
        versions = sorted({f"{name} {version}" for record in group for name, version in record.origin.versions.items()})
        start, end = span(group)
        dates = f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}"
        facts = [place, dates, commit, ", ".join([f"Python {python}", *versions])]
        rows.append([number(len(group), "d"), *map(text, facts)])
    columns = (Column("jobs"), *(Column(label, numeric=False) for label in ("machine", "dates", "commit", "versions")))
    return Table("Where and with what", columns, rows)


def span(records: Sequence[Record]) -> tuple[datetime, datetime]:
    """Return when the first of some jobs started and the last ended."""
    start = min((record.origin.started for record in records), key=datetime.timestamp)
    return start, max((record.origin.ended for record in records), key=datetime.timestamp)
