"""LampAE with features: training, checkpoints, exports, few images."""

import numpy as np
import onnxruntime
import pytest
import torch
from helpers import make_lamp_ae, make_parts

from anomalib_lamp import LampAE
from anomalib_lamp.backbone import Backbone
from anomalib_lamp.models.lamp_ae import calibrate_maps

TARGETS = ["features", "pixels+features"]


@pytest.fixture(params=TARGETS)
def trained(request, make_engine, parts):
    model = make_lamp_ae(targets=request.param, max_steps=3)
    engine = make_engine()
    engine.fit(model, datamodule=parts)
    return model.eval(), engine


def test_learns_saves_and_loads_without_the_package(trained, monkeypatch, parts):
    model, engine = trained
    monkeypatch.setattr(Backbone, "load_weights", lambda *_: pytest.fail("a checkpoint needs no file of weights"))
    loaded = LampAE.load_from_checkpoint(engine.trainer.checkpoint_callback.best_model_path).eval()
    images = torch.rand(2, 3, 90, 90)
    before, after = model(images), loaded(images)
    assert torch.equal(before.pred_score, after.pred_score)
    assert torch.equal(before.anomaly_map, after.anomaly_map)
    assert engine.test(model, datamodule=parts)[0].keys() >= {"image_AUROC", "pixel_AUROC"}


@pytest.mark.slow
def test_an_onnx_export_scores_the_same(trained, tmp_path):
    model, engine = trained
    path = engine.export(model, "onnx", export_root=tmp_path)
    images = torch.rand(1, 3, 90, 90)
    session = onnxruntime.InferenceSession(str(path))
    outputs = dict(
        zip([o.name for o in session.get_outputs()], session.run(None, {"input": images.numpy()}), strict=True)
    )
    with torch.no_grad():
        expected = model(images)
    np.testing.assert_allclose(outputs["pred_score"], expected.pred_score.numpy(), atol=1e-4)
    np.testing.assert_allclose(outputs["anomaly_map"], expected.anomaly_map.numpy(), atol=1e-4)


def test_the_backbone_keeps_its_weights_and_repair_learns(make_engine, parts):
    model = make_lamp_ae(targets="features", max_steps=3)
    branch = model.model.features
    before = [parameter.clone() for parameter in branch.repair.parameters()]
    make_engine().fit(model, datamodule=parts)
    reference = Backbone("tf_efficientnet_lite0", branch.features.backbone.layers)
    reference.load_weights("packaged")
    for name, value in reference.network.state_dict().items():
        assert torch.equal(value, branch.features.backbone.network.state_dict()[name]), name
    assert any(not torch.equal(old, new) for old, new in zip(before, branch.repair.parameters(), strict=True))
    assert not len(model.feature_memory.learnt)  # forgotten


def test_distances_are_from_all_images_but_held_out_ones_are_judged_without_themselves(make_engine, parts, monkeypatch):
    model = make_lamp_ae(targets="features", max_steps=2)
    branch = model.model.features
    judged_by = []
    monkeypatch.setattr(calibrate_maps, "calibrate", lambda *_: judged_by.append(branch.gaussian.mean.clone()))
    make_engine().fit(model, datamodule=parts)
    images = model.pre_processor.transform(torch.stack([item.image for item in parts.train_data]))
    learnt, held_out = model.held_out.split(len(images))
    assert held_out
    with torch.no_grad():
        features = branch.standardised(branch.features(images)).joined()
    torch.testing.assert_close(branch.gaussian.mean, features.mean(0), atol=0.02, rtol=0)
    for mean in judged_by:
        torch.testing.assert_close(mean, features[learnt].mean(0), atol=0.02, rtol=0)
    assert (judged_by[0] - branch.gaussian.mean).abs().max() > 0.1


def test_the_same_seed_gives_the_same_weights(make_engine, parts):
    states = []
    for _ in range(2):
        model = make_lamp_ae(targets="pixels+features", max_steps=3)
        make_engine().fit(model, datamodule=parts)
        states.append(model.state_dict())
    for name, value in states[0].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, states[1][name]), name


def test_a_resumed_training_goes_on(make_engine, parts, monkeypatch):
    engine = make_engine()
    engine.fit(make_lamp_ae(targets="pixels+features", max_steps=3), datamodule=parts)
    monkeypatch.setattr(Backbone, "load_weights", lambda *_: pytest.fail("a checkpoint needs no file of weights"))
    resumed = make_engine()
    checkpoint = engine.trainer.checkpoint_callback.best_model_path
    resumed.fit(make_lamp_ae(targets="pixels+features", max_steps=5), datamodule=parts, ckpt_path=checkpoint)
    assert resumed.trainer.global_step == 5


@pytest.mark.parametrize("count", [1, 5, 20])
def test_few_images_are_enough(make_engine, parts_root, count):
    parts = make_parts(parts_root / str(count), num_train=count)
    model = make_lamp_ae(targets="pixels+features", max_steps=2)
    engine = make_engine()
    engine.fit(model, datamodule=parts)
    assert np.isfinite(engine.test(model, datamodule=parts)[0]["image_AUROC"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet18"}, "weights 'packaged', got 'resnet18'"),
        ({"image_size": 32}, r"at least 64 pixels a side for features, got \(32, 32\)"),
        ({"feature_errors": ["stride2"]}, r"feature_errors from .* got \['stride2'\]"),
        ({"feature_errors": []}, r"feature_errors from .* got \[\]"),
    ],
)
def test_rejects_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_lamp_ae(targets="pixels+features", **arguments)
