"""What a report picks from its records: main metric, order of the models, baseline, and the seed to show."""

import difflib
from collections.abc import Sequence

from anomalib_lamp.compare.records import Record, finished
from anomalib_lamp.compare.statistics import Summary, metric_of

MAIN_METRIC = "image_AUROC"


def model_means(summaries: Sequence[Summary], metric: str) -> dict[str, list[float]]:
    """Return for every model its mean over seeds on each data set that it has a value on."""
    means: dict[str, list[float]] = {summary.model: [] for summary in summaries}
    for summary in summaries:
        value = summary.metrics[metric].mean
        if value is not None:
            means[summary.model].append(value)
    return means


def order_models(summaries: Sequence[Summary]) -> list[str]:
    """Return the models, those with an image AUROC on the most data sets first, and of these the highest mean first.

    A model that was only tried on an easy data set does not come before those that were tried on all.
    """
    means = model_means(summaries, MAIN_METRIC)
    return sorted(means, key=lambda model: (-len(means[model]), -sum(means[model]), model))


def choose_baseline(summaries: Sequence[Summary], baseline: str | None) -> tuple[str, str]:
    """Return the model to compare with, and sentences that say how it was chosen.

    Without a name it is the model with the most finished jobs, and of several the first of :func:`order_models`.

    Raises:
        ValueError: If there is no model of that name.
    """
    models = order_models(summaries)
    if baseline is not None:
        if baseline not in models:
            near = difflib.get_close_matches(baseline, models, n=3, cutoff=0.3)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            msg = f"Expected baseline to be one of the models {sorted(models)}, got {baseline!r}.{hint}"
            raise ValueError(msg)
        return baseline, "The baseline was named when this report was made."
    jobs = {model: sum(summary.finished for summary in summaries if summary.model == model) for model in models}
    baseline = max(models, key=lambda model: jobs[model])  # max takes the first, which is the best
    reason = (
        "No baseline was named: this is the model with the most finished jobs and, among those, the highest mean image "
        "AUROC. Being chosen by its results flatters it."
    )
    return baseline, reason


def data_of_one_kind(records: Sequence[Record]) -> list[str]:
    """Return the data sets whose tested images are all good or all with defects, which leaves nothing to rank."""
    kinds: dict[str, set[bool]] = {}
    for record in finished(records):
        kinds.setdefault(record.data, set()).update(image.anomalous for image in record.images)
    return sorted(data for data, anomalous in kinds.items() if len(anomalous) == 1)


def median_records(records: Sequence[Record]) -> list[Record]:
    """Return one record per data set and model, the median seed by image AUROC, so that none is picked by hand.

    Of an even number it is the worse of the two in the middle. Ordered by data set and model.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in finished(records):
        groups.setdefault((record.data, record.model), []).append(record)
    medians = []
    for _, group in sorted(groups.items()):
        ordered = sorted(group, key=lambda record: (metric_of(record, MAIN_METRIC) or 0.0, record.seed))
        medians.append(ordered[(len(ordered) - 1) // 2])
    return medians
