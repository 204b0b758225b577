"""The report as a whole: from a folder and from a file, the same every time, bad input, and its speed."""

import re
import time

import pytest
from helpers import make_failed, make_record, make_sweep, write_folder

from anomalib_lamp.report import report


def test_a_file_gives_the_same_without_pictures(folder, tmp_path):
    path = report(folder.root / "results.jsonl", tmp_path / "new")
    assert path == tmp_path / "new" / "report.html"
    assert (tmp_path / "new" / "report.md").read_text() == (folder.root / "report.md").read_text()
    page = path.read_text()
    assert "<img" not in page
    assert "without the folder that has the pictures" in page


def test_is_the_same_every_time(folder, tmp_path):
    assert report(folder.root, tmp_path).read_bytes() == (folder.root / "report.html").read_bytes()


def test_bad_input_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape("Expected a folder made by `anomalib-lamp compare`")):
        report(tmp_path)
    (tmp_path / "results.jsonl").write_text(make_record().to_line() + '{"schema_version": 2}\n')
    with pytest.raises(ValueError, match=r"results.jsonl, line 2 is not a record of schema version 1: schema_version"):
        report(tmp_path / "results.jsonl")
    (tmp_path / "results.jsonl").write_text(make_record().to_line())
    with pytest.raises(ValueError, match=r"models \['PaDiM'\], got 'padim'. Did you mean 'PaDiM'\?"):
        report(tmp_path / "results.jsonl", baseline="padim")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_a_thousand_records_take_less_than_half_a_minute(tmp_path):
    write_folder(tmp_path, [*make_sweep(data_sets=15, models=22, seeds=3), *(make_failed(seed=s) for s in range(10))])
    start = time.perf_counter()
    report(tmp_path)
    assert time.perf_counter() - start < 30
