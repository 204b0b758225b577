"""The subcommands predict, check and bench, and what the command imports."""

import json
import subprocess
import sys

import numpy as np
import pytest
from anomalib_lamp_runtime.cli import main
from anomalib_lamp_runtime.commands import COMMANDS
from exports import BACKGROUND, MARK, draw_part
from PIL import Image


@pytest.fixture
def run(capsys):
    """Run the command, and return its exit code, what it printed and its error messages."""

    def run_command(*words):
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        return end.value.code, *capsys.readouterr()

    return run_command


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    (folder / "shift 2").mkdir(parents=True)
    draw_part().save(folder / "good.png")
    draw_part(mark=(16, 12, 32, 24)).save(folder / "shift 2" / "bad.bmp")
    return folder


def test_the_help_lists_every_subcommand(run):
    code, text, _ = run("--help")
    assert code == 0
    for command in COMMANDS:
        name, summary = command.__name__.rpartition(".")[2], command.__doc__.partition("\n")[0]
        assert name in text
        assert summary in " ".join(text.split())
        assert run(name, "--help")[0] == 0


def test_predict_prints_a_line_for_every_photograph(run, exported, photographs):
    code, text, _ = run("predict", photographs, "--model", exported)
    lines = [json.loads(line) for line in text.splitlines()]
    assert code == 0
    assert [line["file"] for line in lines] == [str(photographs / "good.png"), str(photographs / "shift 2" / "bad.bmp")]
    assert [line["anomalous"] for line in lines] == [False, True]
    assert [line["score"] for line in lines] == pytest.approx([1 - BACKGROUND / 255, 1 - MARK / 255])


def test_predict_takes_one_file_and_a_threshold(run, exported, photographs):
    code, text, _ = run("predict", photographs / "good.png", "--model", exported, "--threshold", "0.2", "--threads", 1)
    assert code == 0
    assert [json.loads(text)[name] for name in ("threshold", "anomalous")] == [0.2, True]


def test_predict_goes_on_after_a_bad_photograph(run, exported, photographs):
    (photographs / "broken.png").write_bytes(b"")
    code, text, _ = run("predict", photographs, "--model", exported)
    lines = [json.loads(line) for line in text.splitlines()]
    assert code == 1
    assert [set(line) >= {"score"} for line in lines] == [False, True, True]
    assert "broken.png" in lines[0]["error"]


def test_predict_saves_heat_maps_under_the_names_of_the_photographs(run, exported, photographs, tmp_path):
    assert run("predict", photographs, "--model", exported, "--heat-maps", tmp_path / "maps")[0] == 0
    saved = sorted(path.relative_to(tmp_path / "maps") for path in (tmp_path / "maps").rglob("*.png"))
    assert [str(path) for path in saved] == ["photographs/good.png.png", "photographs/shift 2/bad.bmp.png"]
    good, bad = (np.asarray(Image.open(tmp_path / "maps" / path)).astype(int) for path in saved)
    assert bad.shape == (48, 64, 3)
    assert (good[..., 2] > good[..., 0]).all()
    assert bad[18, 24, 0] > bad[18, 24, 2]
    assert bad[12, 16].tolist() == [255, 255, 255]


@pytest.mark.parametrize("words", [["predict", "nowhere", "--model", "{}"], ["predict", "{}", "--model", "nowhere"]])
def test_what_is_not_there_is_said_on_one_line(run, exported, words):
    code, text, message = run(*(word.format(exported) for word in words))
    assert (code, text) == (2, "")
    assert "nowhere" in message
    assert len(message.splitlines()) == 1


def test_a_threshold_out_of_range_is_refused(run, exported, photographs):
    code, _, message = run("predict", photographs, "--model", exported, "--threshold", "1.5")
    assert code == 2
    assert "expected a number in [0, 1], got 1.5" in message


def test_heat_maps_among_the_photographs_are_refused(run, exported, photographs):
    code, text, message = run("predict", photographs, "--model", exported, "--heat-maps", photographs / "maps")
    assert (code, text) == (2, "")
    assert "Expected heat maps outside of" in message


def test_a_heat_map_that_cannot_be_saved_ends_it_with_one_line(run, exported, photographs, tmp_path):
    (tmp_path / "maps").touch()
    code, _, message = run("predict", photographs, "--model", exported, "--heat-maps", tmp_path / "maps")
    assert code == 2
    assert len(message.splitlines()) == 1


def test_predict_ends_quietly_with_whoever_reads_it(exported, photographs):
    for index in range(200):
        draw_part().save(photographs / f"{index:03}.bmp")
    words = ["predict", photographs, "--model", exported, "--threads", "1"]
    command = [sys.executable, "-m", "anomalib_lamp_runtime", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stdout.readline())["anomalous"] is False
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_check_accepts_what_was_exported(run, exported):
    code, text, _ = run("check", exported)
    assert code == 0
    assert [line.split()[:2] for line in text.splitlines()] == [["ok:", "bad.png:"], ["ok:", "good.png:"]]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"score": 1 - MARK / 255 + 0.0009}, 0),
        ({"score": 1 - MARK / 255 - 0.0011}, 1),
        ({"anomalous": False}, 1),
    ],
)
def test_check_refuses_another_score_or_label(run, altered, change, code):
    file = altered / "golden" / "bad.png.npz"
    with np.load(file) as expected:
        np.savez(file, **{**expected, **change})
    found, text, _ = run("check", altered)
    assert found == code
    assert ("DIFFERS: bad.png" in text) == bool(code)


def test_check_refuses_an_altered_model(run, altered):
    with (altered / "model.onnx").open("ab") as file:
        file.write(b"\0")
    code, _, message = run("check", altered)
    assert code == 2
    assert "altered" in message


def test_bench_prints_a_table(run, exported, photographs):
    code, text, _ = run("bench", photographs, "--model", exported, "--count", 20, "--threads", 1)
    header, row = (line.split("  ") for line in text.splitlines())
    columns = [cell.strip() for cell in header if cell.strip()]
    name, size, p50, p95, p99, *differences = [cell.strip() for cell in row if cell.strip()]
    assert code == 0
    assert columns == ["format", "MB", "p50 ms", "p95 ms", "p99 ms", "score diff", "map diff"]
    assert (name, differences) == ("onnx", ["0.0e+00"] * 2)
    assert float(size) == pytest.approx((exported / "model.onnx").stat().st_size / 1e6, abs=0.1)
    assert 0 < float(p50) <= float(p95) <= float(p99)


def test_the_command_imports_neither_torch_nor_anomalib(exported, photographs):
    program = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['torch', 'anomalib', 'cv2', 'scipy', 'openvino']))\n"  # imports fail
        "from anomalib_lamp_runtime.cli import main\n"
        f"main(['predict', {str(photographs)!r}, '--model', {str(exported)!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done.stderr
