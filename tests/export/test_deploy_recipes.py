"""The recipes of docs/deploy.md run as they stand, on an exported model."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import onnx
import pytest
from anomalib_lamp_runtime import Inspector
from anomalib_lamp_runtime.cli import main
from helpers import REPOSITORY
from PIL import Image

TEXT = (REPOSITORY / "docs" / "deploy.md").read_text()
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", TEXT, flags=re.MULTILINE | re.DOTALL))
FAKE_CAMERA = """
import cv2

class FakeCamera:
    def __init__(self, number):
        self.frames = [cv2.imread("part.png"), cv2.imread("good.png")]

    def read(self):
        return (True, self.frames.pop(0)) if self.frames else (False, None)

cv2.VideoCapture = FakeCamera
"""


def block(section, language):
    """Return the only block of a language in a section."""
    (code,) = re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], flags=re.DOTALL)
    return code


@pytest.fixture
def workplace(lamp_ae, tmp_path, monkeypatch):
    """A folder with `exported`, `part.png`, a damaged part, and `photos`."""
    (tmp_path / "exported").symlink_to(lamp_ae.folder)
    shutil.copy(lamp_ae.folder / "golden" / "damaged.png", tmp_path / "part.png")
    shutil.copy(lamp_ae.folder / "golden" / "lowest.png", tmp_path / "good.png")
    shutil.copytree(lamp_ae.images, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(code):
    """Run Python code in a process of its own and return the words that it prints, by lines."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "runtime")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def expected(*photographs, threshold=None):
    """Return what a recipe prints of photographs."""
    results = [Inspector("exported", threshold=threshold)(photograph) for photograph in photographs]
    return [[f"{result.score:.3f}", "defect" if result.anomalous else "good"] for result in results]


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(("section", "lines"), [("ONNX Runtime only", 20), ("OpenVINO only", 10)])
def test_recipes_without_the_runtime_print_what_it_says(section, lines):
    code = block(section, "python")
    assert len(code.splitlines()) <= lines
    assert "anomalib" not in code
    assert run(code) == expected("part.png")


@pytest.mark.usefixtures("workplace")
def test_the_heat_map_of_onnx_runtime_only_has_the_size_of_the_photograph():
    run(block("ONNX Runtime only", "python"))
    assert Image.open("heat_map.png").size == Image.open("part.png").size


def test_the_recipe_of_the_runtime(workplace):
    code = block("The runtime", "python")
    (score, raw_score, label), *regions = run(code)
    assert [[score, label]] == expected("part.png", threshold=0.6)
    result = Inspector("exported")("part.png")
    assert float(raw_score) == result.raw_score
    assert [int(region[0]) for region in regions] == [region.left for region in result.regions]
    assert (workplace / "heat_map.png").is_file()
    (workplace / "part.png").write_bytes(b"")
    assert "Expected a photograph that can be read, got part.png" in " ".join(run(code)[0])


@pytest.mark.usefixtures("workplace")
def test_the_camera_loop_in_ten_lines_with_a_fake_camera():
    code = block("A camera, with OpenCV", "python")
    assert len([line for line in code.splitlines() if line and "import" not in line]) <= 10
    assert run(FAKE_CAMERA + code) == expected("part.png", "good.png")


def test_commands_of_the_runtime(workplace, capsys):
    commands = [shlex.split(line) for line in block("The runtime", "bash").splitlines()]
    assert [words[1] for words in commands] == ["check", "predict", "predict", "bench"]
    printed = []
    for program, *words in commands:
        assert program == "anomalib-lamp-runtime"
        with pytest.raises(SystemExit, match="0"):
            main([*words, *(["--count", "10"] if words[0] == "bench" else [])])
        printed.append(capsys.readouterr().out.splitlines())
    check, one, several, bench = printed
    assert len(check) == 4
    assert json.loads(one[0])["file"] == "part.png"
    assert [json.loads(line)["threshold"] for line in several] == [0.6] * 4
    assert len(list((workplace / "heat_maps").rglob("*.png"))) == 4
    assert [line.split()[0] for line in bench] == ["format", "onnx", "openvino"]


def test_the_file_has_the_inputs_and_outputs_that_the_c_sharp_recipe_names(lamp_ae):
    graph = onnx.load(lamp_ae.folder / "model.onnx").graph
    named = set(re.findall(r'"(\w+)"', block("C#", "csharp"))) - {"good", "defect"}
    assert named == {"input", "pred_score", "pred_label", "anomaly_map"}
    assert named <= {value.name for value in (*graph.input, *graph.output)}
