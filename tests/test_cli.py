"""The command `anomalib-lamp`: what its help lists and explains, and what `report` prints."""

import sys
import textwrap

import pytest
from helpers import make_sweep, write_folder

from anomalib_lamp import cli
from anomalib_lamp.compare.spec import GRAMMAR, read_spec


def run(monkeypatch, capsys, *arguments):
    """Run the command, and return its exit code and what it printed."""
    monkeypatch.setattr(sys, "argv", ["anomalib-lamp", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as error:
        code = error.code
    return code, capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_the_help_lists_our_subcommands_among_anomalibs(monkeypatch, capsys, arguments):
    code, text = run(monkeypatch, capsys, *arguments)
    listed = text.partition("Available subcommands:")[2]
    assert code == 0
    for name, summary in {**cli.SUMMARIES, "train": "Fit the model", "predict": "Run inference"}.items():
        assert f" {name} " in listed
        assert summary in listed


def test_the_help_of_compare_has_the_grammar_and_every_option(monkeypatch, capsys):
    code, text = run(monkeypatch, capsys, "compare", "--help")
    assert code == 0
    assert GRAMMAR in text
    for option in ("--out", "--executor", "--processes", "--retries", "--dry_run"):
        assert option in text
    assert "``" not in text
    assert ":func:" not in text
    assert max(map(len, GRAMMAR.splitlines())) < 80


def test_the_spec_in_the_help_is_one(tmp_path):
    example = GRAMMAR[GRAMMAR.index("  data:\n") : GRAMMAR.index("data, models ")]
    (tmp_path / "spec.yaml").write_text(textwrap.dedent(example))
    jobs = read_spec(tmp_path / "spec.yaml")
    assert len(jobs) == 2 * (2 + 1 + 1 + 1) * 3


def test_report_without_results_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["anomalib-lamp", "report", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "Expected a folder made by `anomalib-lamp compare`" in capsys.readouterr().err


def test_report_says_where_its_page_is(monkeypatch, capsys, tmp_path):
    write_folder(tmp_path, make_sweep())
    code, text = run(monkeypatch, capsys, "report", tmp_path)
    assert code == 0
    pages = [line.partition(": ")[2] for line in text.splitlines()]
    assert pages == [str(tmp_path / "report.html"), str(tmp_path / "report.md")]
    assert (tmp_path / "report.html").is_file()
