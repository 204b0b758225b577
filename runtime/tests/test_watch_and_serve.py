"""The commands `watch` and `serve` with an exported model, and every command in docs/line.md as it stands there."""

import configparser
import json
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from anomalib_lamp_runtime.cli import main
from exports import BACKGROUND, MARK, draw_part

DOCUMENT = (Path(__file__).parents[2] / "docs" / "line.md").read_text(encoding="utf-8")
COMMAND = "anomalib-lamp-runtime "
MARKED = (16, 12, 32, 24)


def commands(name):
    """Return the lines of the document that call the subcommand."""
    blocks = re.findall(r"```(?:bash|ini)\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line.partition(COMMAND)[2] for line in lines if f"{COMMAND}{name} " in line]


@pytest.fixture
def site(tmp_path, exported, monkeypatch):
    """A working folder with an exported model and a camera's folder with two photographs."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(exported, tmp_path / "exported")
    (tmp_path / "camera" / "monday").mkdir(parents=True)
    draw_part().save(tmp_path / "camera" / "part.png")
    draw_part(mark=MARKED).save(tmp_path / "camera" / "monday" / "bad.png")
    return tmp_path


@pytest.fixture
def begin(process_of):
    """Return a function that starts the command and returns the process and what it says first."""

    def start(words):
        process = process_of("from anomalib_lamp_runtime.cli import main; main()", *words)
        return process, process.stdout.readline()

    return start


def stop(process):
    """Return the exit code after SIGTERM."""
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    return process.returncode


def wait_for_lines(process, results, count):
    """Return the lines of results once there are so many."""
    end = time.monotonic() + 20
    while not results.exists() or results.read_bytes().count(b"\n") < count:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    return [json.loads(line) for line in results.read_text().splitlines()]


def edit_metadata(site, **values):
    file = site / "exported" / "metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("words", commands("watch"))
def test_watch_of_the_document_writes_a_line_for_each_photograph(words, site, begin):
    words = words.replace("/srv/", "").replace("/opt/lamp/", "").replace("/var/lib/lamp/", "")
    process, said = begin([*shlex.split(words), "--settle", "0.1"])
    assert said.startswith("Drift is not watched. Expected reference values of at least one quantity")
    lines = wait_for_lines(process, site / "results.jsonl", 2)
    assert stop(process) == 0
    found = {line["path"]: (line["score"], line["anomalous"]) for line in lines}
    good, bad = 1 - BACKGROUND / 255, 1 - MARK / 255
    assert found == {"part.png": (pytest.approx(good), False), "monday/bad.png": (pytest.approx(bad), True)}
    maps = sorted(str(path.relative_to(site)) for path in site.glob("heat_maps/**/*.jpg"))
    assert maps == (["heat_maps/monday/bad.png.jpg", "heat_maps/part.png.jpg"] if "--heat-maps" in words else [])


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
@pytest.mark.parametrize("words", commands("serve"))
def test_serve_of_the_document_answers_its_curls(words, site, begin):
    edit_metadata(site, reference={name: [0.1, 0.2, 0.3] * 9 for name in ("score", "brightness", "sharpness")})
    process, said = begin([*shlex.split(words), "--port", "0"])
    assert said.startswith("Serving http://127.0.0.1:")
    curls = re.findall(r"^curl .*", DOCUMENT, flags=re.MULTILINE)
    curls = [line.replace("http://127.0.0.1:8000/", said.split()[1]) for line in curls]
    answers = [
        subprocess.run(shlex.split(line), cwd=site, capture_output=True, text=True, check=True).stdout for line in curls
    ]
    assert json.loads(answers[0])["score"] == pytest.approx(1 - BACKGROUND / 255)
    assert json.loads(answers[1])["photographs"] == 1
    assert 'anomalib_lamp_drift{quantity="score"} 0\n' in answers[2]
    assert stop(process) == 0


def test_unit_of_the_document_is_complete():
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read_string(re.search(r"```ini\n(.*?)```", DOCUMENT, flags=re.DOTALL)[1])
    assert unit.sections() == ["Unit", "Service", "Install"]
    assert unit["Service"]["ExecStart"].startswith(f"/opt/lamp/bin/{COMMAND}watch ")


def test_watch_tells_drift_in_the_line_that_fills_the_window(site, begin):
    edit_metadata(site, reference={"score": [0.21, 0.22, 0.23] * 9, "brightness": [0.7, 0.8, 0.9] * 9})
    words = "watch camera --model exported --results results.jsonl --settle 0 --drift-window 2 --drift-rate 0.01"
    process, said = begin(words.split())
    assert said == "Watching camera; 0 photographs have a line.\n"
    lines = wait_for_lines(process, site / "results.jsonl", 2)
    assert stop(process) == 0
    assert [line.get("drift", "no window") for line in lines] == ["no window", []]


@pytest.mark.parametrize("command", [["watch", "camera", "--results", "results.jsonl"], ["serve", "--port", "0"]])
def test_neither_begins_with_a_model_that_predicts_something_else(command, site, begin):
    file = site / "exported" / "golden" / "good.png.npz"
    with np.load(file) as values:
        np.savez(file, **{**values, "score": values["score"] + 0.002})
    process, said = begin([*command, "--model", "exported"])
    assert said.startswith("Expected the model to predict what it predicted before the export, got good.png: score")
    assert process.wait(20) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("watch camera --results other.csv", "Expected results of `watch` in other.csv, got something else in line 1"),
        ("watch camera --results results.jsonl --heat-maps camera/maps", "Expected heat maps outside of camera"),
        ("watch camera --results results.jsonl --patience -1", "expected seconds of at least 0, got -1"),
        ("serve --port 70000", "Expected to listen at 127.0.0.1, port 70000"),
        ("serve --drift-rate 2", "expected a number between 0 and 1, got 2"),
        ("serve --workers 0", "expected at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_told_with_exit_code_2(words, message, site, capsys):
    (site / "other.csv").write_text("name,score\n")
    assert exit_code(*words.split(), "--model", "exported") == 2
    assert message in capsys.readouterr().err
    assert (site / "other.csv").read_text() == "name,score\n"


def exit_code(*words):
    with pytest.raises(SystemExit) as end:
        main(words)
    return end.value.code
