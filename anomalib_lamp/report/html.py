"""A report as one HTML page that loads nothing: style, script, drawings and pictures are inside."""

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from anomalib_lamp.compare.records import Record, ResultFolder, finished
from anomalib_lamp.compare.statistics import metric_of
from anomalib_lamp.report import plots
from anomalib_lamp.report.page import MAIN_METRIC, Page
from anomalib_lamp.report.tables import median_records, place_of

HERE = Path(__file__).parent
MAX_CURVES = 8
MAX_PICTURES = 90
MAX_PICTURE_BYTES = 8 * 2**20
PICTURE_SORTS = (
    ("miss", "defect with a low score"),
    ("false_alarm", "good image with a high score"),
    ("hit", "defect with a high score"),
)


@dataclass(frozen=True)
class Figure:
    """A drawing with the text under it."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Picture:
    """A picture inside the page: what it shows, in full and in short, and its bytes as an address."""

    description: str
    caption: str
    address: str


def render_html(page: Page, records: Sequence[Record], folder: ResultFolder | None = None) -> str:
    """Return a report as HTML.

    Args:
        page: What it says.
        records: What the drawings are made from.
        folder: Where the pictures of jobs lie; ``None`` shows none.
    """
    chosen = median_records(records)
    pictures, told = gallery(chosen, page.numbers, folder)
    figures = {"roc": roc_figures(chosen, page.numbers), "cost": cost_figures(records, page)}
    if page.ranking.ranks:
        note = "Each bar is one critical difference wide: models whose bars overlap are not told apart."
        figures["ranking"] = [Figure(Markup(plots.ranks(page.ranking, page.numbers)), note)]
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = (HERE / "page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html.jinja").render(
        page=page,
        figures=figures,
        key=[(number, model, plots.colour(number), plots.dash(number)) for model, number in page.numbers.items()],
        pictures=pictures,
        pictures_told=told,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def roc_figures(chosen: Sequence[Record], numbers: dict[str, int]) -> list[Figure]:
    """Return the ROC curves of every data set, of the first ``MAX_CURVES`` models that have one."""
    by_data: dict[str, list[Record]] = {}
    for record in chosen:
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
        figures.append(Figure(Markup(svg), data + left_out))
    return figures


def cost_figures(records: Sequence[Record], page: Page) -> list[Figure]:
    """Return quality against latency and against memory: a point per model, mean over data sets.

    Times and sizes of different machines are not mixed: those of the machine with the most jobs are drawn.
    """
    usable = [record for record in finished(records) if record.cost and metric_of(record, MAIN_METRIC) is not None]
    if not usable:
        return []
    place, count = Counter(map(place_of, usable)).most_common(1)[0]
    drawn = [record for record in usable if place_of(record) == place]
    on_gpu = all(record.cost and record.cost.peak_gpu_mib for record in drawn)
    memory = ("peak GPU memory, MiB", _gpu_memory) if on_gpu else ("peak memory of the job, MiB", _memory)
    figures = []
    for label, cost in [("latency of one image, ms", _latency), memory]:
        points = [point for model, number in page.numbers.items() if (point := _point(drawn, model, number, cost))]
        if points:
            told = [f"Quality against {label.split(',')[0]}; up and to the left is better."]
            if not all(point.complete for point in points):
                told.append("Hollow: a model that lacks some data sets.")
            if count < len(usable):
                told.append(f"Measured on {place}; {len(usable) - count} jobs of other machines are left out.")
            figures.append(Figure(Markup(plots.scatter(points, label, "image AUROC")), " ".join(told)))
    return figures


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


def gallery(
    chosen: Sequence[Record], numbers: dict[str, int], folder: ResultFolder | None
) -> tuple[dict[str, list[Picture]], str]:
    """Return pictures of the best and worst cases by data set, and a sentence that says which were left out.

    The first picture of each sort comes before the second one of any, the first models before the others, every data
    set in turn, until there are ``MAX_PICTURES`` or their files have ``MAX_PICTURE_BYTES`` bytes.

    Args:
        chosen: One record per data set and model.
        numbers: Number of each model; low ones come first.
        folder: Where the pictures lie; ``None`` shows none.
    """
    if folder is None:
        return {}, "Not here: this report was made from a file of records, without the folder that has the pictures."
    found = [(record, path, *_sort_and_place(path)) for record in chosen for path in folder.pictures(record.job)]
    if not found:
        return {}, "No job kept pictures."
    found.sort(key=lambda item: (item[3], numbers[item[0].model], item[0].data, item[2]))
    sizes = np.cumsum([path.stat().st_size for _, path, _, _ in found])
    taken = found[: min(MAX_PICTURES, int((sizes <= MAX_PICTURE_BYTES).sum()))]
    taken.sort(key=lambda item: (item[0].data, numbers[item[0].model], item[2], item[3]))
    pictures: dict[str, list[Picture]] = {}
    for record, path, sort, _ in taken:
        caption = (
            f"{record.model}: {PICTURE_SORTS[sort][1] if sort < len(PICTURE_SORTS) else path.stem} (seed {record.seed})"
        )
        address = "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()
        pictures.setdefault(record.data, []).append(Picture(f"{record.data}, {caption}", caption, address))
    told = (
        f"{len(taken)} of {len(found)} pictures, of one seed per data set and model, the median by image AUROC. From "
        "left to right: image, outline of the true defect, heat map. High and low are among the scores of the test "
        "set; no threshold is used."
    )
    return pictures, told


def _sort_and_place(path: Path) -> tuple[int, int]:
    """Return the place of a picture's sort in ``PICTURE_SORTS``, after it if unknown, and its own place in the sort."""
    name, _, place = path.stem.rpartition("_")
    names = [sort for sort, _ in PICTURE_SORTS]
    return names.index(name) if name in names else len(PICTURE_SORTS), int(place) if place.isdecimal() else 0
