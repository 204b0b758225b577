"""The HTML page: all its sections, loads nothing, shows names as text, and works in a browser."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from browser import find_browser, open_page
from helpers import EVIL, REPORT_SECTIONS, make_cost, make_failed, make_images, make_metrics, make_record, write_folder

from anomalib_lamp.report import report


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


def test_has_every_section(folder):
    page = Outline((folder.root / "report.html").read_text())
    for section in REPORT_SECTIONS:
        assert section in page.text
    assert page.tags.count("h2") == len(REPORT_SECTIONS)
    assert page.tags.count("img") == 3 * 16  # one seed of each data set and model


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


@pytest.mark.parametrize(
    ("records", "note"),
    [
        ([make_failed(), make_failed(model="B")], "No job has finished."),
        ([make_record(images=[], cost=make_cost(latency=[]))], "There is one model"),
        ([make_record(metrics=make_metrics(0.9, image_AUROC=None)), make_record(model="B")], "Against the baseline"),
        ([make_record(images=make_images(good=0)), make_record(model="B", images=[])], "A ranking needs at least 3"),
    ],
)
def test_of_little_says_what_is_missing(records, note, tmp_path):
    write_folder(tmp_path, records)
    page = Outline(report(tmp_path).read_text())
    assert note in page.text
    assert "No job kept pictures." in page.text
    assert all(section in page.text for section in REPORT_SECTIONS)


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
