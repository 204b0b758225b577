"""The built wheel in a new environment: bare names on anomalib's command line, from any folder, and after uninstall.

The environment borrows the installed libraries of this one, so that nothing is downloaded.
"""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from helpers import REPOSITORY

MODEL = ["--model", "LampAE", "--model.width", "4", "--model.depth", "3", "--model.image_size", "64"]
UNKNOWN = "Expected a dot import path string: LampAE"
HOOK_FILES = {"_anomalib_lamp_startup.py", "anomalib_lamp_startup.pth", "anomalib_lamp_startup.start"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        REPOSITORY,
    ]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def new_environment(folder):
    """Make a virtual environment that borrows this one's libraries, and return its site-packages."""
    venv.create(folder, with_pip=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (site / "zz_borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return site


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A virtual environment with the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    new_environment(folder)
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "-q", "--no-deps", wheel], check=True)
    return folder


def run(environment, *arguments, cwd, **variables):
    inherited = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "ANOMALIB_LAMP_AUTOLOAD"}}
    return subprocess.run(
        [environment / "bin" / "python", "-W", "ignore", *map(str, arguments)],
        cwd=cwd,
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


ANOMALIB = ("-c", "from anomalib.cli.cli import main; main()")


def data(parts_root):
    return ["--data", "MVTec", "--data.root", parts_root, "--data.category", "washer", "--data.num_workers", "0"]


def test_the_wheel_holds_the_package_and_the_hook(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert set(names) >= HOOK_FILES
    assert "anomalib_lamp/py.typed" in names
    assert {f"anomalib_lamp/report/page.{kind}" for kind in ("css", "js", "html.jinja")} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "startup/"))]


def test_bare_names_train_from_another_folder(environment, parts_root, tmp_path):
    arguments = ["train", *MODEL, *data(parts_root), "--trainer.max_steps", "2", "--trainer.accelerator", "cpu"]
    result = run(environment, *ANOMALIB, *arguments, cwd=tmp_path)
    assert "image_AUROC" in result.stdout, result.stderr
    assert (tmp_path / "results" / "LampAE" / "MVTecAD" / "washer" / "latest" / "images").is_dir()


def test_help_describes_every_argument(environment, tmp_path):
    result = run(environment, *ANOMALIB, "train", "--model.help", "LampAE", cwd=tmp_path, COLUMNS="200")
    for text in ("--model.base_loss", "Error of each pixel that is amplified", "--model.max_steps", "--model.seed"):
        assert text in result.stdout


def test_worker_processes_find_the_classes(environment, tmp_path):
    script = tmp_path / "workers.py"
    script.write_text(
        "import multiprocessing\n"
        "def build(_):\n"
        "    from anomalib.models import get_model\n"
        "    return get_model('lamp_ae', width=4, depth=3).name\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(build, [0]))\n"
    )
    result = run(environment, script, cwd=tmp_path)
    assert result.stdout.strip().endswith("['LampAE']"), result.stderr


def test_switched_off_the_bare_name_is_unknown_and_other_ways_work(environment, parts_root, tmp_path):
    off = {"ANOMALIB_LAMP_AUTOLOAD": "0"}
    train = ["train", *MODEL, *data(parts_root), "--trainer.max_steps", "2", "--trainer.accelerator", "cpu"]
    result = run(environment, *ANOMALIB, *train, cwd=tmp_path, **off)
    assert result.returncode != 0
    assert UNKNOWN in result.stderr
    dotted = ["anomalib_lamp." + a if a in {"LampAE", "MVTec"} else a for a in train]
    result = run(environment, *ANOMALIB, *dotted, cwd=tmp_path, **off)
    assert "image_AUROC" in result.stdout, result.stderr
    result = run(environment, "-m", "anomalib_lamp", *train, cwd=tmp_path, **off)
    assert "image_AUROC" in result.stdout, result.stderr


def test_benchmark_pipeline_by_bare_names(environment, parts_root, tmp_path):
    config = {
        "accelerator": ["cpu"],
        "benchmark": {
            "seed": 0,
            "model": {
                "class_path": "LampAE",
                "init_args": {
                    "width": 4,
                    "depth": 3,
                    "image_size": 64,
                    "max_steps": 2,
                    "amplify": {"grid": [True, False]},
                },
            },
            "data": {"class_path": "MVTec", "init_args": {"root": str(parts_root), "category": "washer"}},
        },
    }
    (tmp_path / "benchmark.json").write_text(json.dumps(config))
    result = run(environment, *ANOMALIB, "benchmark", "--config", "benchmark.json", cwd=tmp_path)
    (table,) = tmp_path.glob("runs/**/results.csv")
    assert len(table.read_text().splitlines()) == 3, result.stderr


@pytest.mark.slow
def test_editable_installs_have_the_hook_too(tmp_path):
    folder = tmp_path / "editable"
    site = new_environment(folder)
    install = ["-m", "pip", "install", "-q", "--no-deps", "-e", REPOSITORY]  # fetches hatchling and editables
    assert run(folder, *install, cwd=tmp_path).returncode == 0
    assert {path.name for path in site.iterdir()} >= HOOK_FILES
    code = "from anomalib.models import get_model; print(get_model('lamp_ae').name)"
    assert run(folder, "-c", code, cwd=tmp_path).stdout.strip() == "LampAE"
    assert run(folder, "-m", "pip", "uninstall", "-q", "-y", "anomalib-lamp", cwd=tmp_path).returncode == 0
    assert not HOOK_FILES & {path.name for path in site.iterdir()}


def test_uninstall_leaves_nothing(environment, parts_root, tmp_path):
    """Runs last: it takes the package away."""
    result = run(environment, "-m", "pip", "uninstall", "-q", "-y", "anomalib-lamp", cwd=tmp_path)
    assert result.returncode == 0
    assert not [path for path in environment.rglob("*anomalib_lamp*") if "__pycache__" not in path.parts]
    result = run(
        environment, "-c", "import sys; print([f for f in sys.meta_path if 'Register' in str(f)])", cwd=tmp_path
    )
    assert (result.stdout.strip(), result.stderr) == ("[]", "")
    train = ["train", *MODEL, *data(parts_root), "--trainer.max_steps", "2", "--trainer.accelerator", "cpu"]
    result = run(environment, *ANOMALIB, *train, cwd=tmp_path)
    assert result.returncode != 0
    assert UNKNOWN in result.stderr
