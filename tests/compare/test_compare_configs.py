"""Every spec in configs/compare is right, and one job of each of its models runs, made small."""

from dataclasses import replace

import pytest
import yaml
from helpers import REPOSITORY, SMALL_PARTS

from anomalib_lamp.compare.spec import read_spec
from anomalib_lamp.compare.worker import work_on

SPECS = sorted((REPOSITORY / "configs" / "compare").glob("*.yaml"))
AT_64_PIXELS = {
    "class_path": "anomalib.pre_processing.PreProcessor",
    "init_args": {"transform": {"class_path": "torchvision.transforms.v2.Resize", "init_args": {"size": [64, 64]}}},
}
SMALL = {
    "LampAE": {"width": 4, "image_size": 64, "max_steps": 1},
    "FineTunedGaussian": {
        "backbone": "resnet18",
        "layers": ["act1", "layer1"],
        "weights": "random",
        "image_size": 64,
        "max_steps": 1,
    },
    "Padim": {"layers": ["layer1"], "n_features": 8, "backbone": "resnet18", "pre_trained": False},
    "ReverseDistillation": {
        "backbone": "resnet18",
        "layers": ["layer1", "layer2", "layer3"],
        "pre_processor": AT_64_PIXELS,
    },
    "Stfpm": {"pre_processor": AT_64_PIXELS},
    "Fre": {"pre_processor": AT_64_PIXELS, "input_dim": 112 * 2 * 2},
    "Ganomaly": {"pre_processor": AT_64_PIXELS, "n_features": 4},
    "Draem": {"pre_processor": AT_64_PIXELS, "dtd_dir": str(REPOSITORY / "configs")},  # no pictures: it draws noise
}


@pytest.mark.parametrize("path", SPECS, ids=[path.stem for path in SPECS])
def test_spec_runs(path, parts_root, tmp_path):
    spec = yaml.safe_load(path.read_text())
    small_parts = {"class_path": "SyntheticParts", "init_args": {"root": str(parts_root), **SMALL_PARTS}}
    spec["data"] = {"parts": small_parts}
    (tmp_path / "spec.yaml").write_text(yaml.dump(spec))
    first = {}
    for job in sorted(read_spec(tmp_path / "spec.yaml"), key=lambda job: "amplify" not in job.config):
        first.setdefault(job.config["model"]["class_path"].rpartition(".")[2], job)
    for name, job in first.items():
        config = {
            **job.config,
            "model": job.config["model"] | {"init_args": job.config["model"]["init_args"] | SMALL[name]},
            "trainer": {"accelerator": "cpu", "max_epochs": 1, "devices": 1},
            "measure": {"latency_batch_sizes": [], "latency_image_size": 64, "export": False},
        }
        config["data"]["init_args"] |= {"num_workers": 0, "val_split_ratio": 0.5}
        assert work_on(replace(job, config=config), tmp_path / "out") == "finished"


@pytest.mark.parametrize("path", SPECS, ids=[path.stem for path in SPECS])
def test_data_of_a_spec_is_known(path, tmp_path, monkeypatch):
    spec = yaml.safe_load(path.read_text())
    for entry in spec["data"].values():
        (tmp_path / entry["init_args"]["root"]).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path)
    assert read_spec(path)
