"""What is measured of models: their own training loss, the same amplified, without a change to the model."""

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.models import Draem, Dsr, Fre, Ganomaly, Padim, ReverseDistillation, Stfpm
from helpers import REPOSITORY, make_lamp_ae

from anomalib_lamp import LampAE, amplify_loss
from anomalib_lamp.corruption import repeatably
from anomalib_lamp.landscape import grid, random_directions, surface, weights_of
from anomalib_lamp.landscape.objectives import MODELS, objective_of

QUIET = {"visualizer": False, "evaluator": False}
SMALL = {**QUIET, "backbone": "resnet18", "pre_trained": False}
MAKERS = {
    "ReverseDistillation": lambda: ReverseDistillation(**SMALL),
    "Stfpm": lambda: Stfpm(backbone="resnet18", **QUIET),
    "Fre": lambda: Fre(layer="layer2", input_dim=2048, **SMALL),
    "Draem": lambda: Draem(dtd_dir=REPOSITORY / "benchmarks" / "results", **QUIET),  # any picture will do
    "Ganomaly": lambda: Ganomaly(n_features=8, latent_vec_size=10, **QUIET),
    "Dsr": lambda: Dsr(**QUIET),
}
FROZEN = {  # a module of each that must not move
    "ReverseDistillation": "encoder",
    "Stfpm": "teacher_model",
    "Fre": "feature_extractor",
    "Ganomaly": "discriminator",
    "Dsr": "discrete_latent_model",
}


LARGE = ("Draem", "Dsr")  # a surface of 97 million weights takes seconds


@pytest.fixture
def offline(monkeypatch):
    """Let Stfpm, which always loads weights from the network, start from random ones."""
    import timm

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: create(*args, **{**kwargs, "pretrained": False}))


def images(size=64):
    return torch.rand(2, 3, size, size)


def state_of(model):
    """Return weights and buffers; thresholds of the post-processor, which are NaN before a training, are not there."""
    return {name: value.clone() for name, value in model.model.state_dict().items() if torch.is_tensor(value)}


@torch.no_grad()
def settle(network, batch):
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    network(batch)


def amplified(errors):
    return -np.log(1 - errors)


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_pixels_of_lamp_ae_are_measured_as_they_are_trained_but_as_a_mean(strength):
    model, batch = make_lamp_ae(base_loss="l2", corruption_strength=strength), images()
    objective = objective_of(model, batch)
    losses = objective.closure(weights_of(objective.module))
    with torch.no_grad():
        repaired = model.model.network.eval()(repeatably(model.corruption, batch))
    errors = (repaired - batch).square().double().numpy()
    assert losses["base"].item() == pytest.approx(errors.mean(), rel=1e-5)
    assert losses["LAMP"].item() == pytest.approx(amplified(errors).mean(), rel=1e-5)


def test_features_of_lamp_ae_are_measured_as_they_are_trained():
    torch.manual_seed(0)
    model, batch = make_lamp_ae(targets="pixels+features", weights="random"), images()
    model.model.eval()
    branch = model.model.features
    branch.fit(branch.features(torch.rand(6, 3, 64, 64)))
    objective = objective_of(model, batch, "features")
    losses = objective.closure(weights_of(objective.module))
    with torch.no_grad():
        wanted = branch.standardised(branch.features(batch)).coarse
        repaired = branch.repair(repeatably(branch.damaged, wanted))
        errors = branch.repair_error(repaired, wanted).double().numpy()
    assert losses["base"].item() == pytest.approx(errors.mean(), rel=1e-5)
    assert losses["LAMP"].item() == pytest.approx(amplified(errors).mean(), rel=1e-5)
    assert not any("backbone" in name for name in weights_of(objective.module))


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", MAKERS)
def test_a_model_of_anomalib_is_measured_by_its_own_loss_and_by_the_amplified_one(name):
    torch.manual_seed(0)
    model, batch = MAKERS[name](), images(256 if name == "Ganomaly" else 64)
    if name == "Ganomaly":  # its norms need statistics, or it returns 0 whatever it gets
        settle(model.model.train(), batch)
    before = state_of(model)
    training = model.training
    objective = objective_of(model, batch)
    weights = weights_of(objective.module)
    losses = objective.closure(weights)
    assert losses["LAMP"] > losses["base"] > 0
    moved = [key.removeprefix("model.model.") for key in weights]
    assert moved
    assert not any(key.startswith(FROZEN.get(name, "nothing")) for key in moved)
    if name not in LARGE:
        found = surface(objective.closure, weights, random_directions(objective.module, 1), [grid(0.1, 3)])
        assert found.values["base"][1] == pytest.approx(found.centre["base"])
        assert len(set(found.values["base"])) == 3
    assert all(torch.equal(value, before[key]) for key, value in state_of(model).items())
    assert model.training == training


@pytest.mark.parametrize("name", ["ReverseDistillation", "Fre"])
def test_the_amplified_loss_is_that_of_amplify_loss(name):
    torch.manual_seed(0)
    model, batch = MAKERS[name]().eval(), images()
    objective = objective_of(model, batch)
    losses = objective.closure(weights_of(objective.module))
    model.train()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eval()
    model.log = lambda *_, **__: None
    batch = ImageBatch(image=batch)
    assert losses["base"].item() == pytest.approx(model.training_step(batch)["loss"].item(), rel=1e-5)
    with amplify_loss(model, first_batches=1):
        model.training_step(batch)  # takes the scale of errors without a bound
        assert losses["LAMP"].item() == pytest.approx(model.training_step(batch)["loss"].item(), rel=1e-5)


def test_every_model_that_can_be_amplified_is_known():
    from anomalib_lamp.amplification.anomalib_losses import LOSSES

    assert {known.model.__name__ for known in LOSSES} == set(MODELS)


def test_l1_is_measured_without_curvature():
    assert "L1" in objective_of(make_lamp_ae(base_loss="l1"), images()).without_curvature
    assert objective_of(make_lamp_ae(base_loss="l2"), images()).without_curvature == ""


@pytest.mark.parametrize(
    ("model", "target", "message"),
    [
        (lambda: make_lamp_ae(), "features", r"target from \['pixels'\]"),
        (lambda: MAKERS["Fre"](), "pixels", "target for LampAE only"),
        (lambda: Padim(**SMALL), None, "Padim fits memories or distributions"),
    ],
)
def test_a_model_without_such_a_loss_is_refused(model, target, message):
    with pytest.raises(ValueError, match=message):
        objective_of(model(), images(), target)


def test_an_amplified_model_is_refused():
    model = MAKERS["Fre"]()
    with amplify_loss(model), pytest.raises(ValueError, match="not amplified"):
        objective_of(model, images())


def test_lamp_ae_stays_in_its_mode_and_keeps_its_weights():
    model = LampAE(targets="pixels", width=4, depth=3, image_size=64).train()
    before = state_of(model)
    objective = objective_of(model, images())
    surface(objective.closure, weights_of(objective.module), random_directions(objective.module, 1), [grid(1.0, 3)])
    assert model.model.network.training
    assert all(torch.equal(value, before[key]) for key, value in state_of(model).items())
