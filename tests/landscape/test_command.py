"""The command on checkpoints of small trained models: page, figures, tables, JSON; a stopped run; what it refuses."""

import json
import sys
from functools import partial

import pytest
import torch
from anomalib.models import Stfpm
from helpers import SMALL_PARTS, make_lamp_ae

from anomalib_lamp import cli
from anomalib_lamp.landscape import plot, sharpness
from anomalib_lamp.landscape.command import images_of, landscape, load, short_labels

QUICK = {"images": 2, "steps": 5, "measure_sharpness": False}


def checkpoint(path, model):
    """Write what a training leaves of a model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    torch.save({**content, "pytorch-lightning_version": "2.6.0"}, path)
    return path


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Three states of a training, and one with LAMP."""
    folder = tmp_path_factory.mktemp("checkpoints")
    model = make_lamp_ae(amplify=False, base_loss="l1")
    images = torch.rand(4, 3, 64, 64)
    optimizer = torch.optim.Adam(model.model.network.parameters(), 1e-2)
    files = []
    for step in range(3):
        optimizer.zero_grad()
        model.loss(model.model.network(images), images).backward()
        optimizer.step()
        files.append(checkpoint(folder / "base" / f"{step}.ckpt", model))
    return [*files, checkpoint(folder / "lamp" / "2.ckpt", make_lamp_ae(amplify=True, base_loss="l1", seed=1))]


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the figures out, which take seconds."""
    monkeypatch.setattr("anomalib_lamp.landscape.command.drawings_of", lambda _: {})


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["anomalib-lamp", "landscape", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as error:
        code = error.code
    return code, capsys.readouterr()


def test_the_command_writes_a_page_with_everything(monkeypatch, capsys, checkpoints, parts_root, tmp_path):
    quick = {"directions": 2, "ascent_steps": 1, "restarts": 1}
    monkeypatch.setattr("anomalib_lamp.landscape.command.sharpness", partial(sharpness, **quick))
    *way, base, lamp = checkpoints
    data = ["--data", "SyntheticParts", "--data.root", parts_root]
    data += [word for name, value in SMALL_PARTS.items() for word in (f"--data.{name}", value)]
    small = ["--images", "2", "--steps", "5"]
    trajectory = ["--trajectory", json.dumps(list(map(str, way)))]
    code, text = run(monkeypatch, capsys, base, lamp, *data, *small, *trajectory, "--out", tmp_path / "out")
    assert code == 0, text.err
    assert f"Page: {tmp_path / 'out' / 'landscape.html'}" in text.out
    page = (tmp_path / "out" / "landscape.html").read_text()
    for words in ("landscape of 2 checkpoints", "base, learnt images", "LAMP, held out images", "No curvature: L1"):
        assert words in page
    assert page.count("<svg") >= 11
    assert "http" not in page.replace("http-equiv", "")
    tables = (tmp_path / "out" / "landscape.md").read_text()
    assert "| base |" in tables
    assert "| lamp |" in tables
    for name in ("contours-base", "surface-LAMP", "line-base", "perturbations-learnt-base", "trajectory-base"):
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 5000
        assert (tmp_path / "out" / f"{name}.svg").read_text().startswith("<?xml")
    found = json.loads((tmp_path / "out" / "landscape.json").read_text())
    assert found["checkpoints"] == {"base": str(base), "lamp": str(lamp)}
    assert set(found["sharpness"]) == {"learnt", "held out"}
    assert len(found["trajectory"]["coordinates"]) == 3
    sharp = found["sharpness"]["learnt"]["base"]["LAMP"]
    assert sharp["loss"] > found["sharpness"]["learnt"]["base"]["base"]["loss"]
    assert [perturbed["radius"] for perturbed in sharp["perturbed"]] == [0.05, 0.1, 0.2, 0.5]
    assert found["planes"]["base"]["gaps"] == {"base": 0, "LAMP": 0}


@pytest.mark.usefixtures("undrawn")
def test_the_same_command_again_takes_over_what_is_there(monkeypatch, checkpoints, parts, tmp_path):
    landscape(checkpoints[-2:], parts, out=tmp_path, **QUICK)
    before = (tmp_path / "plane-1.json").read_text()
    calls = []
    module = sys.modules["anomalib_lamp.landscape.surface"]
    monkeypatch.setattr(module, "_points", lambda *arguments: calls.append(arguments[-1]) or [])
    landscape(checkpoints[-2:], parts, out=tmp_path, **QUICK)
    assert calls == [25, 25]
    assert (tmp_path / "plane-1.json").read_text() == before


def test_equal_seeds_draw_equal_landscapes(monkeypatch, checkpoints, parts, tmp_path):
    def contours(found):
        return {"contours-base": (plot.contours(found.planes, "base"), "")}

    monkeypatch.setattr("anomalib_lamp.landscape.command.drawings_of", contours)
    for folder in ("one", "two"):
        landscape(checkpoints[-1:], parts, out=tmp_path / folder, **{**QUICK, "steps": 3})
    for name in ("plane-1.json", "contours-base.png", "contours-base.svg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_help_explains_every_option(monkeypatch, capsys):
    code, text = run(monkeypatch, capsys, "--help")
    assert code == 0
    for option in ("checkpoints", "--data", "--model", "--out", "--trajectory", "--radius", "--steps", "--images"):
        assert option in text.out
    assert "``" not in text.out


def test_another_architecture_is_refused(checkpoints, parts, tmp_path):
    other = checkpoint(tmp_path / "other.ckpt", make_lamp_ae(width=8))
    with pytest.raises(ValueError, match=r"the same architecture, got down\.0"):
        landscape([checkpoints[-1], other], parts, out=tmp_path / "out", **QUICK)


def test_a_checkpoint_of_another_class_is_refused(checkpoints):
    with pytest.raises(ValueError, match="Expected a checkpoint of Ganomaly, got"):
        load("Ganomaly", checkpoints[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.ckpt"], "Expected a checkpoint, got nowhere.ckpt"),
        (["{there}", "--radius", "0"], "Expected a radius above 0"),
        (["{there}", "--steps", "4"], "Expected an odd number"),
        (["{there}", "--images", "0"], "Expected 1 or more images"),
        (["{there}", "{there}"], "Expected different checkpoints"),
        (["{there}", "--model", "Nothing"], "Expected the name of a model"),
    ],
)
def test_what_cannot_be_drawn_is_said(monkeypatch, capsys, checkpoints, parts_root, tmp_path, arguments, message):
    words = [word.format(there=checkpoints[-1]) for word in arguments]
    data = ["--data", "SyntheticParts", "--data.root", parts_root]
    data += [word for name, value in SMALL_PARTS.items() for word in (f"--data.{name}", value)]
    code, text = run(monkeypatch, capsys, *words, *data, "--out", tmp_path)
    assert code == 2
    assert message in text.err


def test_images_are_good_ones_as_the_model_gets_them(parts):
    model = make_lamp_ae(image_size=32, depth=2)
    learnt, held_out = (images_of(parts, model, 3, test=test) for test in (False, True))
    assert learnt.shape == held_out.shape == (3, 3, 32, 32)
    assert len(images_of(parts, model, 100, test=True)) == SMALL_PARTS["num_test_good"]


def test_labels_are_what_tells_files_apart():
    assert short_labels(["a/x/last.ckpt", "a/y/last.ckpt", "a/y/z/last.ckpt"]) == ["x", "y", "y/z"]


@pytest.mark.usefixtures("undrawn")
def test_a_model_of_anomalib_is_drawn_too(monkeypatch, parts, tmp_path):
    import timm

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: create(*args, **{**kwargs, "pretrained": False}))
    file = checkpoint(tmp_path / "stfpm.ckpt", Stfpm(backbone="resnet18", visualizer=False, evaluator=False))
    page = landscape([file], parts, model="Stfpm", out=tmp_path, **{**QUICK, "steps": 3})
    assert "Loss landscape of 1 checkpoint" in page.read_text()
