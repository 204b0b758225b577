"""The README's commands and example run as they stand, on small data and with few steps."""

import json
import re
import shutil

import pytest
import yaml
from anomalib.cli.cli import AnomalibCLI
from anomalib_lamp_runtime.cli import main as inspect_photographs
from helpers import REPOSITORY, SMALL_PARTS, make_parts

from anomalib_lamp.cli import main

README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
BASH = "".join(code for language, code in BLOCKS if language == "bash").replace("\\\n", " ")  # a command a line
PYTHON = [code for language, code in BLOCKS if language == "python"]
QUICK = ["--model.width", "4", "--model.image_size", "64", "--model.max_steps", "2", "--trainer.accelerator", "cpu"]


@pytest.fixture
def workplace(tmp_path, parts_root, monkeypatch):
    """A folder with the data that the README speaks of, made small."""
    washer = parts_root / "washer"
    for name, source in {
        "configs": REPOSITORY / "configs",
        "datasets/MVTecAD/bottle": washer,
        "new_photos/001.png": washer / "test" / "scratch" / "000.png",
        **{f"photos/good/{path.parts[-3]}-{path.name}": path for path in washer.glob("*/good/*.png")},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            (tmp_path / name).symlink_to(source)
        else:
            shutil.copy(source, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def anomalib_commands():
    """Return the README's commands of anomalib as lists of words, made quick."""
    commands = [line.split()[1:] for line in BASH.splitlines() if line.startswith("anomalib ")]
    for words in commands:
        workers = ["--data.num_workers", "0"] if words[0] == "train" else []
        small_data = ["--data.size", "64", "--data.num_train", "4"] if "SyntheticParts" in words else []
        yield [*words, *QUICK, *workers, *small_data]


def test_commands(workplace, monkeypatch, capsys):
    commands = list(anomalib_commands())
    assert {words[0] for words in commands} == {"train", "predict"}
    assert len(commands) == 4
    for words in commands:
        AnomalibCLI(words)
    results = workplace / "results" / "LampAE"
    assert (results / "SyntheticParts" / "connector").is_dir()
    assert (results / "MVTecAD" / "bottle").is_dir()
    assert list((results / "parts" / "latest" / "images").rglob("*.png"))
    assert list((results / "latest" / "images" / "new_photos").glob("*.png"))
    capsys.readouterr()
    exec(PYTHON[0].replace("LampAE()", "LampAE(width=4, image_size=64)"), {})
    assert re.search(r"\.png 0\.\d{3} (good|defect)$", capsys.readouterr().out, flags=re.MULTILINE)
    ours = "anomalib-lamp export", "anomalib-lamp-runtime"
    export, inspect = (line.split() for line in BASH.splitlines() if line.startswith(ours))
    monkeypatch.setattr("sys.argv", export)
    main()
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        inspect_photographs(inspect[1:])
    assert json.loads(capsys.readouterr().out)["file"] == "new_photos/001.png"


def test_compare_and_report(workplace, monkeypatch):
    commands = [line.split() for line in BASH.splitlines() if re.match("anomalib-lamp (compare|report)", line)]
    assert [words[1] for words in commands] == ["compare", "report"]
    spec = yaml.safe_load((workplace / "configs/compare/quick.yaml").read_text())
    spec["data"]["parts"]["init_args"] |= SMALL_PARTS
    spec["data"]["parts"]["grid"] = {"category": ["washer"]}
    spec["models"] = {"lamp_ae": {"class_path": "LampAE", "init_args": {"width": 4, "image_size": 64, "max_steps": 2}}}
    (workplace / "configs").unlink()
    (workplace / "configs/compare").mkdir(parents=True)
    (workplace / "configs/compare/quick.yaml").write_text(yaml.dump({**spec, "seeds": [0]}))
    for words in commands:
        monkeypatch.setattr("sys.argv", words)
        main()
    page = (workplace / "results/compare/quick/report.html").read_text()
    assert "lamp_ae" in page


def test_python_example(workplace, capsys):
    make_parts(workplace / "datasets" / "SyntheticParts", train_batch_size=16).prepare_data()
    assert len(PYTHON) == 2
    example = PYTHON[1]
    for whole, small in {
        "SyntheticParts(": "SyntheticParts(size=64, num_train=8, num_test_good=4, num_test_per_defect=1, ",
        "LampAE(max_steps=300,": "LampAE(width=4, image_size=64, max_steps=2,",
        "Engine()": "Engine(accelerator='cpu')",
    }.items():
        assert whole in example
        example = example.replace(whole, small)
    assert len(example.strip().splitlines()) <= 10
    exec(example, {})
    assert re.search(r"^\[0\.\d+\]$", capsys.readouterr().out, flags=re.MULTILINE)


def test_make_targets_and_files_exist():
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"^make (\S+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (REPOSITORY / path).exists(), path


def test_stays_short():
    assert len(README.splitlines()) <= 160
