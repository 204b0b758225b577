"""The content of a report: its sections in their order, with their notes, tables, figures and pictures."""

from collections.abc import Mapping, Sequence

from anomalib_lamp.compare.records import Record, ResultFolder, finished
from anomalib_lamp.compare.statistics import MAX_EXACT_PAIRS, Ranking, Summary, paired_differences, rank, summarize
from anomalib_lamp.report import tables
from anomalib_lamp.report.elements import Page, Section, Table, number, text
from anomalib_lamp.report.figures import cost_figures, rank_figures, roc_figures
from anomalib_lamp.report.gallery import gallery
from anomalib_lamp.report.selection import MAIN_METRIC, choose_baseline, data_of_one_kind, median_records, order_models
from anomalib_lamp.report.tables import LABELS

METHOD = (
    "One job is one model trained on one data set with one seed; ± is the standard deviation over seeds (n - 1).",
    "AUROC and AUPRO come from the raw scores, before any clipping or normalisation that could make ties.",
    "Thresholds, and with them F1, come from validation images (a tenth of those to train with), never tested ones.",
    "Latency is measured apart from metrics and image writing, pre- and post-processing included, after warm-up.",
    "Failed jobs and missing values are counted and named; nothing is left out silently. A dash means not measured.",
)


def make_page(
    records: Sequence[Record],
    baseline: str | None = None,
    folder: ResultFolder | None = None,
    damage: Sequence[str] = (),
) -> Page:
    """Return the report of records.

    Args:
        records: At least one record.
        baseline: Model to compare the others with; ``None`` chooses one, and says how.
        folder: Where the pictures of jobs lie; ``None`` shows none.
        damage: A line for each record that could not be read.

    Raises:
        ValueError: If there is no model ``baseline``, or two finished records are of the same job.
    """
    summaries = summarize(records)
    numbers = {model: place for place, model in enumerate(order_models(summaries), start=1)}
    data = {record.data for record in records}
    done = len(finished(records))
    failed = len(records) - done
    medians = median_records(records)
    start, end = tables.span(records)
    facts = (
        ("models", number(len(numbers), "d")),
        ("data sets", number(len(data), "d")),
        ("seeds", number(len({record.seed for record in records}), "d")),
        ("jobs finished", number(done, "d")),
        ("jobs failed", number(failed, "d", "bad" if failed else "")),
        ("measured", text(f"{start:%Y-%m-%d}" + ("" if start.date() == end.date() else f" to {end:%Y-%m-%d}"))),
    )
    sections = (
        Section("method", "How it was measured", METHOD, (tables.origins(records),)),
        _overview(summaries),
        _quality(summaries, records),
        _failures(records, damage),
        _differences(records, summaries, baseline),
        _ranking(rank(records, MAIN_METRIC), numbers),
        _costs(records, numbers),
        _curves(medians, numbers),
        _defects(records),
        gallery(medians, numbers, folder),
    )
    title = f"{_count(len(numbers), 'model')} on {_count(len(data), 'data set')}"
    return Page(title, facts, sections, numbers)


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _note_if(is_so: bool, note: str, otherwise: str = "No job has finished.") -> tuple[str, ...]:
    return (note if is_so else otherwise,)


def _overview(summaries: Sequence[Summary]) -> Section:
    """Return the models at a glance."""
    coverage = {
        model: frozenset(s.data for s in summaries if s.model == model and s.finished)
        for model in {summary.model for summary in summaries}
    }
    notes = ["Each data set counts once, whatever the number of its seeds. Models with the most data sets come first."]
    if len(set(coverage.values())) > 1:
        notes.append("The models did not finish on the same data sets: means over different ones are not comparable.")
    return Section("overview", "At a glance", tuple(notes), (tables.overview(summaries),))


def _quality(summaries: Sequence[Summary], records: Sequence[Record]) -> Section:
    """Return the quality per data set and model."""
    notes = ["Mean ± standard deviation over seeds; the best mean of a data set is bold. No ± means one seed."]
    missing = {
        LABELS[metric]: sum(summary.metrics[metric].missing for summary in summaries)
        for metric in tables.measured(summaries)
    }
    gaps = [f"{label} in {count}" for label, count in missing.items() if count]
    if gaps:
        notes.append(
            f"Not measured by finished jobs: {', '.join(gaps)}. A number in brackets is the number of seeds with a "
            "value where it is not that of the finished ones."
        )
    one_kind = data_of_one_kind(records)
    if one_kind:
        notes.append(
            f"Tested images are of one kind, all good or all with defects, on {', '.join(one_kind)}: AUROC needs both."
        )
    return Section("quality", "Quality", tuple(notes), (tables.quality(summaries),))


def _failures(records: Sequence[Record], damage: Sequence[str]) -> Section:
    """Return the jobs that were started and have no result, and the damaged records."""
    table = tables.failures(records)
    if not table.rows:
        return Section("failed", "Failed jobs", tuple(damage) or ("None.",))
    note = f"{len(table.rows)} of {len(records)} jobs failed or have no result; they have no part in the figures."
    return Section("failed", "Failed jobs", (note, *damage), (table,))


def _differences(records: Sequence[Record], summaries: Sequence[Summary], baseline: str | None) -> Section:
    """Return every model against the baseline."""
    name, title = "differences", "Against the baseline"
    baseline, reason = choose_baseline(summaries, baseline)
    metrics = tables.measured(summaries)
    if not metrics:
        note = "No finished job has a metric." if finished(records) else "No job has finished."
        return Section(name, title, (note,))
    if len({summary.model for summary in summaries}) == 1:
        return Section(name, title, ("There is one model: nothing to compare it with.",))
    of_metric = {metric: paired_differences(records, baseline, metric) for metric in metrics}
    everything = [item for items in of_metric.values() for item in items]
    overall = [item for item in everything if item.data is None]
    better = sum(item.wins for item in overall if item.metric == metrics[0])
    worse = sum(item.losses for item in overall if item.metric == metrics[0])
    equal = sum(item.ties for item in overall if item.metric == metrics[0])
    label = LABELS[metrics[0]]
    notes = (
        f"Baseline: {baseline}. {reason}",
        f"By {label}, the other models together lose {worse} pairs against it, win {better} and tie {equal}.",
        "Differences are means of model minus baseline, paired by data set and seed: above 0 the model is better.",
        f"Green and red mark percentile bootstrap intervals of {tables.MIN_PAIRS} or more pairs that exclude 0.",
        f"p is of the two-sided Wilcoxon signed-rank test, exact up to {MAX_EXACT_PAIRS} pairs.",
        f"With fewer than {tables.MIN_PAIRS} pairs p cannot fall below 0.05, and the interval is too narrow.",
        "Pairs of one data set are alike: intervals and p speak of these data sets, not of new ones.",
        "Nothing is corrected for the number of models.",
        "Unpaired: a job of either model failed, was not run or has no value.",
    )
    by_data = tuple(
        Table(f"{LABELS[metric]} on each data set", table.columns, table.rows)
        for metric, items in of_metric.items()
        for table in [tables.differences(items, by_data=True)]
    )
    return Section(name, title, notes, (tables.differences(overall, by_data=False),), by_data)


def _ranking(ranking: Ranking, numbers: Mapping[str, int]) -> Section:
    """Return the ranking over data sets, or why there is none."""
    name, title = "ranking", "Ranking"
    if ranking.why_not is not None:
        return Section(name, title, (ranking.why_not,))
    p = "undefined (all equal)" if ranking.friedman_p is None else f"{ranking.friedman_p:.2g}"
    notes = [
        (
            f"By {LABELS[ranking.metric]}, seeds averaged first, over {len(ranking.data)} data sets: "
            f"{', '.join(ranking.data)}. Friedman test that all models are equal: p = {p}. Critical difference of mean "
            f"ranks (Nemenyi, 5 %): {ranking.critical_difference:.2f}."
        ),
    ]
    for noun, left_out in (("models", ranking.left_out_models), ("data sets", ranking.left_out_data)):
        if left_out:
            notes.append(f"Left out, because results are missing: {noun} {', '.join(left_out)}.")
    return Section(name, title, tuple(notes), (tables.ranking(ranking),), figures=rank_figures(ranking, numbers))


def _costs(records: Sequence[Record], numbers: Mapping[str, int]) -> Section:
    """Return what the models cost."""
    table = tables.costs(records)
    note = (
        "Training time is mean ± standard deviation over seeds, the rest the median over seeds; IQR is the "
        "interquartile range of one job's passes. Memory is the peak of the whole job, training included. Weights say "
        "what a model started from."
    )
    shown = (table,) if table.rows else ()
    return Section("cost", "Cost", _note_if(bool(shown), note), shown, figures=cost_figures(records, numbers))


def _curves(medians: Sequence[Record], numbers: Mapping[str, int]) -> Section:
    """Return the ROC curves of one record per data set and model."""
    notes = _note_if(bool(medians), "One line per model: the seed with the median image AUROC.")
    return Section("roc", "ROC curves", notes, figures=roc_figures(medians, numbers), visual=True)


def _defects(records: Sequence[Record]) -> Section:
    """Return the AUROC of each kind of defect."""
    of_data = tables.defects(records)
    note = "Image AUROC of one kind of defect against all good images, mean over seeds; the colour goes from 0.5 to 1."
    return Section(
        "defects", "By kind of defect", _note_if(bool(of_data), note, "No image scores."), (), tuple(of_data)
    )
