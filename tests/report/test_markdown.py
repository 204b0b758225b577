"""The report as Markdown: its sections, names as text, and tables put into documents."""

import re

import pytest
from helpers import REPORT_SECTIONS

from anomalib_lamp.report import render_between


def test_has_every_section_but_the_visual_ones(folder):
    text = (folder.root / "report.md").read_text()
    visual = ("ROC curves", "Best and worst cases")
    assert re.findall(r"(?m)^## (.*)$", text) == [section for section in REPORT_SECTIONS if section not in visual]
    assert "data00" in text
    assert "<svg" not in text


def test_names_and_errors_are_text(folder):
    text = (folder.root / "report.md").read_text()
    assert "&lt;script&gt;alert('$x^2$')&lt;/script&gt; \\| \\*b\\* |" in text
    assert "<script" not in text
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("| data00 |")]
    assert set(widths) <= {9, 14}  # quality and cost


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
