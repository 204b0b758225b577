"""The report: all its parts, from a folder and from a file, with little, with much and with malicious input."""

import base64
import hashlib
import re
import time
from html.parser import HTMLParser

import pytest
from browser import find_browser, open_page
from generated import (
    KINDS,
    make_cost,
    make_failed,
    make_images,
    make_metrics,
    make_origin,
    make_record,
    make_sweep,
    write_folder,
)
from sklearn.metrics import roc_auc_score

from anomalib_lamp.compare.statistics import rank, summarize
from anomalib_lamp.report import compact_table, html, render_between, render_table, report, tables
from anomalib_lamp.report.page import make_page

EVIL = "<script>alert('$x^2$')</script> | *b*"
SECTIONS = (
    "How it was measured",
    "At a glance",
    "Quality",
    "Failed jobs",
    "Against the baseline",
    "Ranking",
    "Cost",
    "ROC curves",
    "By kind of defect",
    "Best and worst cases",
)


class Outline(HTMLParser):
    """Tags, addresses and text of a page; fails where tags are not closed in order."""

    VOID = ("meta", "img", "input", "br")

    def __init__(self, page):
        super().__init__()
        self.tags, self.addresses, self.open, self.text = [], [], [], ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "action", "srcset", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open = self.open[:-1] if tag not in self.VOID else self.open

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def mixed_records():
    """Return a sweep in which everything occurs: failures, missing values, hostile names, two machines."""
    traceback = f"Traceback (most recent call last):\n  File 'x.py'\nRuntimeError: <b>{EVIL}</b>"
    return [
        *make_sweep(data_sets=5, models=3, seeds=2),
        make_record("data00", EVIL, 0, metrics=make_metrics(0.7, pixel_AUROC=None)),
        make_record("data00", "Model00", 2, origin=make_origin(device="cuda:0", commit=None)),
        make_failed("data01", EVIL, 0, error=traceback, attempt=3),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of a sweep with pictures and its report."""
    root = tmp_path_factory.mktemp("sweep")
    folder = write_folder(root, mixed_records(), pictures=1)
    folder.collect()
    report(root)
    return folder


def cells(table, *columns):
    """Return the texts of some columns of a table."""
    labels = [column.label for column in table.columns]
    return [tuple(row[labels.index(column)].text for column in columns) for row in table.rows]


def test_has_every_section(folder):
    page = Outline((folder.root / "report.html").read_text())
    text = (folder.root / "report.md").read_text()
    for section in SECTIONS:
        assert section in page.text
        assert section in ("ROC curves", "Best and worst cases") or f"## {section}\n" in text
    assert page.tags.count("h2") == len(SECTIONS)
    assert page.tags.count("img") == 3 * 16  # one seed of each data set and model
    assert "data00" in text


def test_loads_nothing(folder):
    page = (folder.root / "report.html").read_text()
    assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in Outline(page).addresses)
    assert not re.search(r"https?:|//\w+\.|@import|url\((?!#)", page.replace("data:image/jpeg;base64,", ""))
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}';" in policy


def test_names_and_errors_are_text(folder):
    page = (folder.root / "report.html").read_text()
    outline = Outline(page)
    assert outline.tags.count("script") == 1
    assert "alert(" not in re.search(r"<script>(.*?)</script>", page, flags=re.DOTALL)[1]
    assert "b" not in outline.tags
    assert EVIL in outline.text
    text = (folder.root / "report.md").read_text()
    assert "&lt;script&gt;alert('$x^2$')&lt;/script&gt; \\| \\*b\\* |" in text
    assert "<script" not in text
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("| data00 |")]
    assert set(widths) <= {9, 14}  # quality and cost


def test_a_file_gives_the_same_without_pictures(folder, tmp_path):
    path = report(folder.root / "results.jsonl", tmp_path / "new")
    assert path == tmp_path / "new" / "report.html"
    assert (tmp_path / "new" / "report.md").read_text() == (folder.root / "report.md").read_text()
    page = path.read_text()
    assert "<img" not in page
    assert "without the folder that has the pictures" in page


def test_is_the_same_every_time(folder, tmp_path):
    assert report(folder.root, tmp_path).read_bytes() == (folder.root / "report.html").read_bytes()


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ([make_failed(), make_failed(model="B")], "No job has finished."),
        ([make_record(images=[], cost=make_cost(latency=[]))], "There is one model"),
        ([make_record(metrics=make_metrics(0.9, image_AUROC=None)), make_record(model="B")], "Against the baseline"),
        ([make_record(images=make_images(good=0)), make_record(model="B", images=[])], "A ranking needs at least 3"),
    ],
)
def test_of_little_says_what_is_missing(records, told, tmp_path):
    write_folder(tmp_path, records)
    page = Outline(report(tmp_path).read_text())
    assert told in page.text
    assert "No job kept pictures." in page.text
    assert all(section in page.text for section in SECTIONS)


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


def test_quality_marks_the_best_and_counts_seeds():
    records = [
        make_record(model="A", seed=0, quality=0.9),
        make_record(model="A", seed=1, metrics=make_metrics(0.8, pixel_AUROC=None)),
        make_failed(model="A", seed=2),
        make_record(model="B", quality=0.95),
    ]
    table = tables.quality(summarize(records))
    assert cells(table, "model", "seeds", "image AUROC", "pixel AUROC") == [
        ("A", "2 (1 failed)", "0.850 ± 0.071", "0.882 [1]"),
        ("B", "1", "0.950", "0.931"),
    ]
    assert [row[3].mark for row in table.rows] == ["", "best"]


def test_baseline_is_the_named_one_or_the_most_complete():
    records = [make_record(model="A", seed=seed, quality=0.7) for seed in range(3)]
    records += [make_record(model="B", seed=seed, quality=0.6) for seed in range(3)]
    records += [make_record(model="C", seed=0, quality=0.9)]
    assert tables.choose_baseline(summarize(records), "C")[0] == "C"
    assert tables.choose_baseline(summarize(records), None)[0] == "A"


def test_comparison_colours_only_what_enough_pairs_show():
    qualities = {"Base": 0.7, "Better": 0.8, "Worse": 0.6}
    for seeds, marks in ((5, ["", ""]), (6, ["win", "loss"])):
        records = [
            make_record(model=m, seed=s, quality=q + s / 1000) for m, q in qualities.items() for s in range(seeds)
        ]
        (section,) = [part for part in make_page(records, "Base").sections if part.name == "differences"]
        rows = [row for row in section.tables[0].rows if row[1].text == "image AUROC"]
        assert [row[2].mark for row in rows] == marks
    assert cells(section.tables[0], "wins", "ties", "losses")[:2] == [("6", "0", "0"), ("0", "0", "6")]


def test_ranking_says_what_is_told_apart():
    table = tables.ranking(rank(make_sweep(data_sets=9, models=3, seeds=1)))
    assert cells(table, "model", "against the best")[0] == ("Model02", "best")
    assert table.rows[-1][2].text == "worse than the best"


def test_costs_do_not_mix_machines():
    fast = make_origin(device="cuda:0")
    records = [
        make_record(seed=0, cost=make_cost(10.0)),
        make_record(seed=1, cost=make_cost(30.0)),
        make_record(seed=2, cost=make_cost(1.0, peak_gpu_mib=2000.0), origin=fast),
    ]
    assert cells(tables.costs(records[:2]), "seeds", "batch 1, ms (IQR)", "peak RAM, MiB") == [
        ("2", "20.0 (1.00)", "1,500")
    ]
    table = tables.costs(records)
    assert cells(table, "machine", "batch 1, ms (IQR)", "peak GPU, MiB", "parameters, M") == [
        ("Intel Xeon, 2 cores, cpu, 2 threads", "20.0 (1.00)", "–", "2.80"),
        ("Intel Xeon, 2 cores, cuda:0, 2 threads", "1.00 (0.05)", "2,000", "2.80"),
    ]


def test_defects_equal_scikit_learn():
    (table,) = tables.defects([make_record(seed=seed, images=make_images(0.8, seed)) for seed in range(2)])
    for kind, cell in zip(KINDS, table.rows[0][1:], strict=True):
        expected = [
            roc_auc_score([image.anomalous for image in images], [image.score for image in images])
            for seed in range(2)
            for images in [[image for image in make_images(0.8, seed) if image.kind in (kind, "good")]]
        ]
        assert cell.value == pytest.approx(sum(expected) / 2)


def test_drawings_take_the_median_seed():
    records = [make_record(seed=seed, quality=quality) for seed, quality in enumerate((0.9, 0.7, 0.8, 0.6))]
    assert [record.seed for record in tables.median_records(records)] == [1]


def test_gallery_is_limited_and_fair(tmp_path, monkeypatch):
    monkeypatch.setattr(html, "MAX_PICTURES", 5)
    records = make_sweep(data_sets=2, models=2, seeds=1)
    folder = write_folder(tmp_path, records, pictures=2)
    pictures, told = html.gallery(records, {"Model01": 1, "Model00": 2}, folder)
    assert told.startswith("5 of 24 pictures")
    assert [picture.caption for picture in pictures["data01"]] == [
        "Model01: defect with a low score (seed 0)",
        "Model01: good image with a high score (seed 0)",
    ]
    assert len(pictures["data00"]) == 3
    monkeypatch.setattr(html, "MAX_PICTURE_BYTES", 1)
    assert html.gallery(records, {"Model01": 1, "Model00": 2}, folder)[1].startswith("0 of 24")


def test_compact_table_has_the_mean_of_shared_data_sets():
    records = [
        make_record("bottle", "A", 0, quality=0.9),
        make_record("bottle", "A", 1, quality=0.8),
        make_record("bottle", "B", quality=0.7),
        make_record("cable", "A", quality=0.5),
        make_record("cable", "B", quality=0.6),
        make_record("grid", "A", quality=0.1),
        make_failed("grid", "B"),
    ]
    expected = """
| data | A | B |
|---|--:|--:|
| bottle | **0.850 ± 0.071** | 0.700 |
| cable | 0.500 | **0.600** |
| grid | **0.100** | – |
| mean of 2 | **0.675** | 0.650 |
"""
    assert render_table(compact_table(records)) == expected.strip()
    assert render_table(compact_table(records, models=["B"])).splitlines()[0] == "| data | B |"
    with pytest.raises(ValueError, match=r"models with records, \['A', 'B'\], got \['C'\]"):
        compact_table(records, models=["C"])


def test_render_between_changes_one_table():
    document = "a\n<!-- table: x -->\n| old |\n<!-- /table -->\nb\n<!-- table: y --><!-- /table -->\n"
    once = render_between(document, "x", "| new |\n")
    assert once == "a\n<!-- table: x -->\n\n| new |\n\n<!-- /table -->\nb\n<!-- table: y --><!-- /table -->\n"
    assert render_between(once, "x", "| new |") == once
    with pytest.raises(ValueError, match=r"'<!-- table: z -->' exactly once, got it 0 times; .* are \['x', 'y'\]"):
        render_between(document, "z", "")
    with pytest.raises(ValueError, match="exactly once, got it 2 times"):
        render_between(document + document, "x", "")
    for broken in ("<!-- table: x -->", "<!-- table: x --> <!-- table: y --> <!-- /table -->"):
        with pytest.raises(ValueError, match="before the next table, got none"):
            render_between(broken, "x", "")


@pytest.mark.skipif(find_browser() is None, reason="no chromium here; on Debian: apt install chromium")
def test_sorts_and_filters_in_a_browser(folder, tmp_path):
    column = "Array.from(document.querySelectorAll('#overview tbody tr'), r => r.cells[{}].textContent)"
    head = "document.querySelectorAll('#overview thead th')[{}]"
    with open_page(find_browser(), (folder.root / "report.html").as_uri(), tmp_path) as tab:
        tab.run(f"{head.format(4)}.querySelector('button').click()")
        values = [float(value) for value in tab.run(column.format(4))]
        assert values == sorted(values)
        assert tab.run(f"{head.format(4)}.getAttribute('aria-sort')") == "ascending"
        tab.run(f"{head.format(4)}.querySelector('button').focus()")
        tab.press("Enter", "\r")
        assert [float(value) for value in tab.run(column.format(4))] == sorted(values, reverse=True)
        assert tab.run(f"{head.format(4)}.getAttribute('aria-sort')") == "descending"
        for _ in range(2):  # pixel AUROC: one model has none, which stays last whichever way the others go
            tab.run(f"{head.format(5)}.querySelector('button').click()")
            assert [value == "–" for value in tab.run(column.format(5))] == [False, False, False, True]
        field = "document.querySelector('#quality input')"
        tab.run(f"{field}.value = 'data03 MODEL01'; {field}.dispatchEvent(new Event('input'))")
        assert tab.run("document.querySelectorAll('#quality tbody tr:not([hidden])').length") == 1
        requests = [event["params"]["request"]["url"] for event in tab.events if event["method"].endswith("WillBeSent")]
        assert {url.split(":")[0] for url in requests} <= {"file", "data"}
        assert [event for event in tab.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")] == []


@pytest.mark.slow
def test_a_thousand_records_take_less_than_half_a_minute(tmp_path):
    write_folder(tmp_path, [*make_sweep(data_sets=15, models=22, seeds=3), *(make_failed(seed=s) for s in range(10))])
    start = time.perf_counter()
    report(tmp_path)
    assert time.perf_counter() - start < 30
