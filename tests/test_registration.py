"""Every way in which anomalib finds our classes."""

import importlib.metadata
import os
import subprocess
import sys

import anomalib.data
import anomalib.models
import pytest
import timm
from anomalib.data import AnomalibDataModule, MVTecAD, get_datamodule
from anomalib.models import AnomalibModule, get_model, list_models

import anomalib_lamp
from anomalib_lamp import LampAE, MVTec, SyntheticParts, data, models, registration

OURS = [getattr(package, name) for package in (models, data) for name in package.__all__]


@pytest.mark.parametrize(
    "name",
    [
        "lamp_ae",
        "LampAE",
        {"class_path": "LampAE"},
        {"class_path": "anomalib_lamp.LampAE"},
        {"class_path": "anomalib.models.LampAE"},
    ],
)
def test_get_model(name):
    assert type(get_model(name, width=4, depth=3)) is LampAE


def test_get_model_passes_init_arguments():
    model = get_model({"class_path": "LampAE", "init_args": {"width": 4, "depth": 3, "max_steps": 7}})
    assert model.max_steps == 7


def test_list_models():
    assert "LampAE" in list_models(case="pascal")


@pytest.mark.parametrize("class_path", ["MVTec", "anomalib_lamp.MVTec", "anomalib.data.MVTec"])
def test_get_datamodule(class_path):
    config = {"data": {"class_path": class_path, "init_args": {"category": "grid"}}}
    datamodule = get_datamodule(config)
    assert type(datamodule) is MVTec
    assert datamodule.category == "grid"


def test_mvtec_is_mvtecad_by_another_name():
    ours, theirs = MVTec(root="somewhere", train_batch_size=3), MVTecAD(root="somewhere", train_batch_size=3)
    assert ours.name == theirs.name == "MVTecAD"
    assert {**vars(ours), "_log_hyperparams": 0}.keys() == {**vars(theirs), "_log_hyperparams": 0}.keys()
    assert (ours.root, ours.train_batch_size) == (theirs.root, theirs.train_batch_size)


def test_the_network_is_known_to_timm_and_not_registered_twice(recwarn):
    assert timm.is_model("efficientnet_lite0_packaged")
    anomalib_lamp.register()
    assert not [warning for warning in recwarn if "Overwriting" in str(warning.message)]


def test_registering_again_changes_nothing():
    before = (list(anomalib.models.__all__), list(anomalib.data.__all__), set(anomalib.models.ALLOWED_MODULES))
    anomalib_lamp.register()
    assert before == (anomalib.models.__all__, anomalib.data.__all__, anomalib.models.ALLOWED_MODULES)


@pytest.mark.parametrize("ours", OURS)
def test_class_names_are_unique_on_the_command_line(ours):
    """Jsonargparse refuses a bare name that two subclasses share."""

    def subclasses(cls):
        return {cls}.union(*(subclasses(sub) for sub in cls.__subclasses__()))

    base = AnomalibModule if issubclass(ours, AnomalibModule) else AnomalibDataModule
    assert [cls for cls in subclasses(base) if cls.__name__ == ours.__name__] == [ours]


def test_every_public_name_is_there():
    assert all(hasattr(anomalib_lamp, name) for name in anomalib_lamp.__all__)
    assert SyntheticParts in OURS


def in_a_new_interpreter(code, **environment):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "imports",
    ["import anomalib_lamp, anomalib", "import anomalib\nfrom anomalib.models import get_model\nimport anomalib_lamp"],
)
def test_works_without_the_hook_whatever_is_imported_first(imports):
    code = imports + "\nfrom anomalib.models import get_model; print(get_model('lamp_ae', width=4, depth=3).name)"
    result = in_a_new_interpreter(code, ANOMALIB_LAMP_AUTOLOAD="0")
    assert result.stdout.strip() == "LampAE", result.stderr


class TestUnusableHost:
    """The package warns in one line, and its pure parts work."""

    code = """
import sys, warnings
{sabotage}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import anomalib_lamp
ours = [str(w.message) for w in caught if "anomalib_lamp" in str(w.message)]
assert len(ours) == 1, ours
print(ours[0])
import torch
print(anomalib_lamp.LampLoss("l1", reduction="mean")(torch.zeros(2), torch.zeros(2)).item())
from anomalib_lamp import *
print(hasattr(anomalib_lamp, "LampAE"))
"""

    @pytest.mark.parametrize(
        ("sabotage", "message"),
        [
            (
                "import importlib.metadata as m\ndef fail(name): raise m.PackageNotFoundError(name)\nm.version = fail",
                "anomalib is not installed; `pip install 'anomalib>=2.7'`",
            ),
            ("import importlib.metadata as m\nm.version = lambda name: '2.6.1'", "anomalib 2.6.1 is too old"),
            ("sys.modules['anomalib.models'] = None", "ModuleNotFoundError"),
        ],
        ids=["missing", "too old", "broken"],
    )
    def test_one_line_and_the_rest_works(self, sabotage, message):
        result = in_a_new_interpreter(self.code.format(sabotage=sabotage), ANOMALIB_LAMP_AUTOLOAD="0")
        warning, loss, has_model = result.stdout.splitlines()[-3:]
        assert warning.startswith("anomalib_lamp offers its losses and functions only: ")
        assert message in warning
        assert (loss, has_model) == ("0.0", "False")


@pytest.mark.parametrize("version", ["2.7.0", "2.8rc1", "2.10.0.dev3", "3.0"])
def test_versions_from_2_7_on_are_accepted(version, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    registration.require_host()


def test_a_star_import_gives_what_is_there():
    names = {}
    exec("from anomalib_lamp import *", names)
    assert {"LampAE", "LampLoss", "MVTec", "SyntheticParts", "functional", "register"} <= set(names)
