"""Every file in configs/ trains on a small data set, and says what the code says."""

import inspect
from argparse import Namespace

import pandas as pd
import pytest
import yaml
from anomalib.cli.cli import AnomalibCLI
from anomalib.models import AnomalibModule
from anomalib.pipelines import Benchmark
from helpers import REPOSITORY, SMALL_PARTS

from anomalib_lamp import FineTunedGaussian, LampAE

CONFIGS = REPOSITORY / "configs"
MODELS = sorted((CONFIGS / "model").glob("*.yaml"))
DATA = sorted((CONFIGS / "data").glob("*.yaml"))
BENCHMARKS = sorted((CONFIGS / "anomalib_benchmark").glob("*.yaml"))
QUICK = {
    LampAE: {"width": 4, "image_size": 64, "max_steps": 2},
    FineTunedGaussian: {
        "backbone": "resnet18",
        "layers": "[act1, layer1]",
        "weights": "random",
        "image_size": 64,
        "max_steps": 2,
    },
}


def names(paths):
    return [path.name for path in paths]


def model_class(config):
    """Return the class that a model config names."""
    name = yaml.safe_load(config.read_text())["model"]["class_path"]
    return next(model for model in QUICK if name == f"anomalib_lamp.{model.__name__}")


def train(model, data, root, folder):
    """Run `anomalib train` and return the folder of its results."""
    quick = [word for key, value in QUICK[model_class(model)].items() for word in (f"--model.{key}", str(value))]
    command = ["train", "--config", str(model), "--data", str(data), "--data.root", str(root)]
    AnomalibCLI([*command, *quick, "--trainer.accelerator", "cpu", "--default_root_dir", str(folder)])
    return next(folder.glob("*/*/*/latest"), None) or next(folder.glob("*/*/latest"))


def parts_as(data, parts_root, tmp_path):
    """Return a root that suits the data config: the small drawn parts, by themselves or as a folder of good photos."""
    if data.name == "good_photos_only.yaml":
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "good").symlink_to(parts_root / "washer" / "train" / "good")
        return tmp_path / "photos"
    if data.name == "mvtec.yaml":
        (tmp_path / "mvtec").mkdir()
        (tmp_path / "mvtec" / "bottle").symlink_to(parts_root / "washer")
        return tmp_path / "mvtec"
    return tmp_path / "drawn"


@pytest.mark.parametrize("model", MODELS, ids=names(MODELS))
def test_model_configs_train(model, parts_root, tmp_path):
    data = CONFIGS / "data" / "mvtec.yaml"
    results = train(model, data, parts_as(data, parts_root, tmp_path), tmp_path / "results")
    assert (results / "weights" / "lightning" / "model.ckpt").is_file()
    assert isinstance(AnomalibModule.from_config(model), model_class(model))


@pytest.mark.parametrize("data", DATA, ids=names(DATA))
def test_data_configs_train(data, parts_root, tmp_path):
    root = parts_as(data, parts_root, tmp_path)
    results = train(CONFIGS / "model" / "lamp_ae.yaml", data, root, tmp_path / "results")
    assert list(results.rglob("images/**/*.png"))


@pytest.mark.parametrize("name", ["lamp_ae.yaml", "fine_tuned_gaussian.yaml"])
def test_the_default_configs_state_the_defaults(name):
    config = CONFIGS / "model" / name
    stated = yaml.safe_load(config.read_text())["model"]["init_args"]
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(model_class(config)).parameters.items()
        if not name.endswith(("processor", "evaluator", "visualizer"))
    }
    assert stated == {**defaults, "seed": 0}


@pytest.mark.parametrize("config", BENCHMARKS, ids=names(BENCHMARKS))
def test_benchmark_configs_give_a_row_per_job(config, parts_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load(config.read_text())
    arguments = content["benchmark"]["model"]["init_args"]
    jobs = 1
    for value in arguments.values():
        if isinstance(value, dict) and "grid" in value:
            value["grid"] = value["grid"][:2]
            jobs *= len(value["grid"])
    arguments.update(QUICK[LampAE], depth=3)
    data = content["benchmark"]["data"]
    if data["class_path"].endswith("MVTec"):
        data["init_args"]["root"] = str(parts_as(CONFIGS / "data" / "mvtec.yaml", parts_root, tmp_path))
    else:
        data["init_args"].update(SMALL_PARTS, root=str(parts_root))
    quick = tmp_path / "quick.yaml"
    quick.write_text(yaml.safe_dump(content))
    Benchmark().run(Namespace(config=quick))
    results = pd.read_csv(next(tmp_path.glob("runs/**/results.csv")))
    assert len(results) == jobs
    assert results["image_AUROC"].between(0, 1).all()
