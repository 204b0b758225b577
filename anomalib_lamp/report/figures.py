"""The figures of a report with their captions: ROC curves, quality against cost, and mean ranks."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from anomalib_lamp.compare.records import Record, finished
from anomalib_lamp.compare.statistics import Ranking, metric_of
from anomalib_lamp.report import plots
from anomalib_lamp.report.elements import Figure
from anomalib_lamp.report.selection import MAIN_METRIC
from anomalib_lamp.report.tables import LABELS, place_of

MAX_CURVES = 8


def roc_figures(records: Sequence[Record], numbers: Mapping[str, int]) -> tuple[Figure, ...]:
    """Return the ROC curves of every data set, of the first ``MAX_CURVES`` models that have one.

    Args:
        records: One record per data set and model.
        numbers: Number of each model; low ones come first.
    """
    by_data: dict[str, list[Record]] = {}
    for record in records:
        if len({image.anomalous for image in record.images}) == 2:
            by_data.setdefault(record.data, []).append(record)
    figures = []
    for data, group in sorted(by_data.items()):
        drawn = sorted(group, key=lambda record: numbers[record.model])[:MAX_CURVES]
        svg = plots.roc(
            [
                (numbers[r.model], [image.anomalous for image in r.images], [image.score for image in r.images])
                for r in drawn
            ]
        )
        left_out = f" ({len(drawn)} of {len(group)} models)" if len(drawn) < len(group) else ""
        figures.append(Figure(svg, data + left_out, small=True))
    return tuple(figures)


def cost_figures(records: Sequence[Record], numbers: Mapping[str, int]) -> tuple[Figure, ...]:
    """Return quality against latency and against memory: a point per model, mean over data sets.

    Times and sizes of different machines are not mixed: those of the machine with the most jobs are drawn.
    """
    usable = [record for record in finished(records) if record.cost and metric_of(record, MAIN_METRIC) is not None]
    if not usable:
        return ()
    place, count = Counter(map(place_of, usable)).most_common(1)[0]
    drawn = [record for record in usable if place_of(record) == place]
    on_gpu = all(record.cost and record.cost.peak_gpu_mib for record in drawn)
    memory = ("peak GPU memory, MiB", _gpu_memory) if on_gpu else ("peak memory of the job, MiB", _memory)
    figures = []
    for label, cost in [("latency of one image, ms", _latency), memory]:
        points = [point for model, number in numbers.items() if (point := _point(drawn, model, number, cost))]
        if points:
            sentences = [f"Quality against {label.split(',')[0]}; up and to the left is better."]
            if not all(point.complete for point in points):
                sentences.append("Hollow: a model that lacks some data sets.")
            if count < len(usable):
                sentences.append(f"Measured on {place}; {len(usable) - count} jobs of other machines are left out.")
            figures.append(Figure(plots.scatter(points, label, LABELS[MAIN_METRIC]), " ".join(sentences)))
    return tuple(figures)


def rank_figures(ranking: Ranking, numbers: Mapping[str, int]) -> tuple[Figure, ...]:
    """Return the mean ranks; nothing if there is no ranking."""
    if not ranking.ranks:
        return ()
    caption = "Each bar is one critical difference wide: models whose bars overlap are not told apart."
    return (Figure(plots.ranks(ranking, numbers), caption),)


def _latency(record: Record) -> float | None:
    """Return the latency at batch size 1, in ms."""
    items = record.cost.latency if record.cost else []
    return next((item.median_ms for item in items if item.batch_size == 1), None)


def _memory(record: Record) -> float | None:
    return record.cost.peak_rss_mib if record.cost else None


def _gpu_memory(record: Record) -> float | None:
    return record.cost.peak_gpu_mib if record.cost else None


def _point(
    records: Sequence[Record], model: str, number: int, cost_of: Callable[[Record], float | None]
) -> plots.Point | None:
    """Return a model's cost and quality, seeds averaged first, then data sets; ``None`` without any."""
    by_data: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        cost, quality = cost_of(record), metric_of(record, MAIN_METRIC)
        if record.model == model and cost is not None and quality is not None:
            by_data.setdefault(record.data, []).append((cost, quality))
    if not by_data:
        return None
    x, y = np.mean([np.mean(values, axis=0) for values in by_data.values()], axis=0).tolist()
    return plots.Point(number, x, y, complete=by_data.keys() == {record.data for record in records})
