"""The gallery: which pictures are shown, and what is said of the others."""

from helpers import make_sweep, write_folder

from anomalib_lamp.report import gallery


def test_gallery_is_limited_and_fair(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "MAX_PICTURES", 5)
    records = make_sweep(data_sets=2, models=2, seeds=1)
    folder = write_folder(tmp_path, records, pictures=2)
    section = gallery.gallery(records, {"Model01": 1, "Model00": 2}, folder)
    assert section.notes[0].startswith("5 of 24 pictures")
    assert [picture.caption for picture in section.pictures["data01"]] == [
        "Model01: defect with a low score (seed 0)",
        "Model01: good image with a high score (seed 0)",
    ]
    assert len(section.pictures["data00"]) == 3
    monkeypatch.setattr(gallery, "MAX_PICTURE_BYTES", 1)
    assert gallery.gallery(records, {"Model01": 1, "Model00": 2}, folder).notes[0].startswith("0 of 24")
