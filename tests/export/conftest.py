"""Shared fixtures: models that are trained, and exported with the command, once."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from anomalib.engine import Engine
from anomalib.models import Padim
from helpers import make_fine_tuned_gaussian, make_lamp_ae, make_parts
from odd_photographs import draw_odd_photographs

from anomalib_lamp import cli


@dataclass(frozen=True)
class Exported:
    """A model: how it is built, its checkpoint, the normal photographs and the folder it was exported to."""

    build: object
    checkpoint: Path
    images: Path
    folder: Path


def make_quick_lamp_ae():
    """Return a LampAE whose map is quick to export."""
    return make_lamp_ae(map_metric="l1", smoothing=1.0)


def make_padim():
    """Return a PaDiM with random weights and anomalib's own resizing."""
    pre_processor = Padim.configure_pre_processor(image_size=(64, 64))
    return Padim(pre_trained=False, layers=["layer1"], n_features=8, pre_processor=pre_processor, visualizer=False)


MODELS = {
    "LampAE": (make_quick_lamp_ae, True),
    "FineTunedGaussian": (make_fine_tuned_gaussian, False),
    "Padim": (make_padim, False),
}


@pytest.fixture(scope="session")
def export_model(parts_root, tmp_path_factory):
    """Train and export a model by its name, at most once."""
    done = {}

    def make(name):
        if name not in done:
            done[name] = train_and_export(name, parts_root, tmp_path_factory.mktemp(name))
        return done[name]

    return make


def train_and_export(name, parts_root, folder):
    """Train a tiny model and run `anomalib-lamp export`."""
    build, openvino = MODELS[name]
    engine = Engine(accelerator="cpu", devices=1, default_root_dir=folder, logger=False)
    engine.fit(build(), datamodule=make_parts(parts_root))
    checkpoint = Path(engine.trainer.checkpoint_callback.best_model_path)
    images = parts_root / "washer" / "test" / "good"
    words = ["export", "--ckpt", checkpoint, "--images", images, "--to", folder / "exported", "--model", name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["anomalib-lamp", *map(str, words), *["--openvino"][: int(openvino)]])
        cli.main()
    return Exported(build, checkpoint, images, folder / "exported")


@pytest.fixture(scope="session")
def lamp_ae(export_model):
    """An exported LampAE."""
    return export_model("LampAE")


@pytest.fixture(scope="session")
def odd_photographs(tmp_path_factory):
    """Fifty photographs of odd sizes, modes and formats."""
    return draw_odd_photographs(tmp_path_factory.mktemp("photographs"))
