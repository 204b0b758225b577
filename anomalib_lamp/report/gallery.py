"""The gallery of a report: pictures of the best and the worst cases."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from anomalib_lamp.compare.records import Record, ResultFolder
from anomalib_lamp.report.elements import Picture, Section

MAX_PICTURES = 90
MAX_PICTURE_BYTES = 8 * 2**20
PICTURE_KINDS = {
    "miss": "defect with a low score",
    "false_alarm": "good image with a high score",
    "hit": "defect with a high score",
}


def gallery(records: Sequence[Record], numbers: Mapping[str, int], folder: ResultFolder | None) -> Section:
    """Return a section with pictures by data set, and a note that says how many were left out.

    The first picture of each kind comes before the second one of any, the first models before the others, every data
    set in turn, until there are ``MAX_PICTURES`` or their files have ``MAX_PICTURE_BYTES`` bytes.

    Args:
        records: One record per data set and model.
        numbers: Number of each model; low ones come first.
        folder: Where the pictures lie; ``None`` shows none.
    """
    if folder is None:
        note = "Not here: this report was made from a file of records, without the folder that has the pictures."
        return _section(note)
    found = [(record, path, *_kind_and_place(path)) for record in records for path in folder.pictures(record.job)]
    if not found:
        return _section("No job kept pictures.")
    found.sort(key=lambda item: (item[3], numbers[item[0].model], item[0].data, item[2]))
    sizes = np.cumsum([path.stat().st_size for _, path, _, _ in found])
    shown = found[: min(MAX_PICTURES, int((sizes <= MAX_PICTURE_BYTES).sum()))]
    shown.sort(key=lambda item: (item[0].data, numbers[item[0].model], item[2], item[3]))
    pictures: dict[str, list[Picture]] = {}
    for record, path, _, _ in shown:
        pictures.setdefault(record.data, []).append(_picture(record, path))
    note = (
        f"{len(shown)} of {len(found)} pictures, of one seed per data set and model, the median by image AUROC. From "
        "left to right: image, outline of the true defect, heat map. High and low are among the scores of the test "
        "set; no threshold is used."
    )
    return _section(note, {data: tuple(of_data) for data, of_data in pictures.items()})


def _section(note: str, pictures: Mapping[str, tuple[Picture, ...]] | None = None) -> Section:
    return Section("gallery", "Best and worst cases", (note,), pictures=pictures or {}, visual=True)


def _picture(record: Record, path: Path) -> Picture:
    """Return a picture of a job with its bytes; one of an unknown kind is called by the name of its file."""
    kind, _, _ = path.stem.rpartition("_")
    caption = f"{record.model}: {PICTURE_KINDS.get(kind, path.stem)} (seed {record.seed})"
    address = "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()
    return Picture(f"{record.data}, {caption}", caption, address)


def _kind_and_place(path: Path) -> tuple[int, int]:
    """Return the place of a picture's kind in ``PICTURE_KINDS``, after it if unknown, and its own place in the kind."""
    name, _, place = path.stem.rpartition("_")
    kinds = list(PICTURE_KINDS)
    return kinds.index(name) if name in kinds else len(kinds), int(place) if place.isdecimal() else 0
