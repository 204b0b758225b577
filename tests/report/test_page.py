"""The content of the page: its sections in their order, and its notes."""

from helpers import REPORT_SECTIONS, make_failed, make_images, make_metrics, make_record

from anomalib_lamp.report.page import make_page


def test_sections_carry_their_figures_and_pictures(folder):
    page = make_page(folder.records(), folder=folder)
    assert tuple(section.title for section in page.sections) == REPORT_SECTIONS
    assert [section.name for section in page.sections if section.figures] == ["ranking", "cost", "roc"]
    assert [section.name for section in page.sections if section.pictures] == ["gallery"]
    assert [section.name for section in page.sections if section.visual] == ["roc", "gallery"]


def test_comparison_colours_only_what_enough_pairs_show():
    qualities = {"Base": 0.7, "Better": 0.8, "Worse": 0.6}
    for seeds, marks in ((5, ["", ""]), (6, ["win", "loss"])):
        records = [
            make_record(model=m, seed=s, quality=q + s / 1000) for m, q in qualities.items() for s in range(seeds)
        ]
        (section,) = [part for part in make_page(records, "Base").sections if part.name == "differences"]
        rows = [row for row in section.tables[0].rows if row[1].text == "image AUROC"]
        assert [row[2].mark for row in rows] == marks
    labels = [column.label for column in section.tables[0].columns]
    counts = [[row[labels.index(label)].text for label in ("wins", "ties", "losses")] for row in section.tables[0].rows]
    assert counts[:2] == [["6", "0", "0"], ["0", "0", "6"]]


def test_data_without_defects_are_named_as_the_reason_for_their_dashes():
    nothing = make_metrics(0.9, image_AUROC=None, pixel_AUROC=None, AUPRO=None, image_F1=None, pixel_F1=None)
    clean = make_record("clean", metrics=nothing, images=make_images(per_kind=0))
    spoilt = make_record("spoilt", metrics=nothing, images=make_images(good=0))
    (note,) = [note for note in notes([clean, spoilt, make_record("bottle")], "quality") if "of one kind" in note]
    assert note.startswith("Tested images are of one kind, all good or all with defects, on clean, spoilt: ")
    assert not [note for note in notes([make_record("bottle")], "quality") if "of one kind" in note]


def test_without_any_metric_no_job_is_said_to_have_failed():
    nothing = make_metrics(0.9, image_AUROC=None, pixel_AUROC=None, AUPRO=None, image_F1=None, pixel_F1=None)
    clean = [make_record("clean", model, metrics=nothing, images=make_images(per_kind=0)) for model in ("A", "B")]
    assert notes(clean, "differences") == ("No finished job has a metric.",)
    assert notes([make_failed("clean")], "differences") == ("No job has finished.",)


def notes(records, name):
    (section,) = [part for part in make_page(records).sections if part.name == name]
    return section.notes
