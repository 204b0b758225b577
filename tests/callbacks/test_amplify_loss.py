"""AmplifyLoss trains anomalib's own models with LAMP, tells how much it did, and leaves no trace in them."""

import logging
import os
import pickle
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from anomalib.cli.cli import AnomalibCLI
from anomalib.deploy import ExportType
from anomalib.models import Fre, Padim, ReverseDistillation
from anomalib.pre_processing import PreProcessor
from helpers import SMALL_PARTS
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from torchvision.transforms.v2 import Resize

from anomalib_lamp import AmplifyLoss, amplify_loss

SMALL = {"backbone": "resnet18", "pre_trained": False, "evaluator": False, "visualizer": False}


def make_fre(seed=0):
    torch.manual_seed(seed)
    return Fre(layer="layer2", input_dim=2048, pre_processor=PreProcessor(Resize((64, 64))), **SMALL)


def make_reverse_distillation():
    torch.manual_seed(0)
    return ReverseDistillation(pre_processor=PreProcessor(Resize((64, 64))), **SMALL)


def fit(make_engine, parts, model, *callbacks, max_epochs=2, ckpt_path=None, **arguments):
    """Fit two batches an epoch, and return the engine."""
    engine = make_engine(callbacks=list(callbacks), max_epochs=max_epochs, limit_val_batches=0, **arguments)
    torch.manual_seed(0)
    engine.fit(model, datamodule=parts, ckpt_path=ckpt_path)
    return engine


def weights(model):
    return model.model.fre_model.weight.detach().clone()


def is_plain(model):
    """Return whether nothing of ours is in a model; its weights are checked by the export."""
    return not model.loss_fn._forward_hooks and b"anomalib_lamp" not in pickle.dumps(model.loss_fn)


class Breaks(Callback):
    def __init__(self, error):
        self.error = error

    def on_train_batch_end(self, trainer, *_):
        assert not is_plain(trainer.lightning_module)
        raise self.error


def test_without_amplifying_training_is_the_same_to_the_bit_and_with_it_another(make_engine, parts):
    def trained(*callbacks, handled=False):
        model = make_fre()
        if handled:
            amplify_loss(model).remove()
        fit(make_engine, parts, model, *callbacks)
        return weights(model)

    plain = trained()
    assert torch.equal(trained(AmplifyLoss(amplify=False, first_batches=1)), plain)
    assert torch.equal(trained(handled=True), plain)
    assert torch.equal(trained(AmplifyLoss(first_batches=5)), plain)  # the fit ends before
    assert not torch.equal(trained(AmplifyLoss(first_batches=1)), plain)


def test_a_fit_leaves_the_model_as_it_was_however_it_ends(make_engine, parts):
    model = make_fre()
    callback = AmplifyLoss(first_batches=1)
    fit(make_engine, parts, model, callback, max_epochs=1)
    assert is_plain(model)
    with pytest.raises(ZeroDivisionError):
        fit(make_engine, parts, model, callback, Breaks(ZeroDivisionError()), max_epochs=1)
    assert is_plain(model)
    with pytest.raises(SystemExit):
        fit(make_engine, parts, model, callback, Breaks(KeyboardInterrupt()), max_epochs=1)
    assert is_plain(model)


def test_a_callback_may_be_used_again_and_takes_new_scales(make_engine, parts):
    callback = AmplifyLoss(first_batches=1)
    fit(make_engine, parts, make_fre(), callback, max_epochs=1)
    first = callback.state_dict()
    fit(make_engine, parts, make_fre(seed=1), callback, max_epochs=1)
    fit(make_engine, parts, make_fre(seed=1), fresh := AmplifyLoss(first_batches=1), max_epochs=1)
    assert first != callback.state_dict() == fresh.state_dict()


class RemembersErrors(Callback):
    """Notes the cosine distances of every epoch, before they are amplified."""

    def __init__(self):
        self.epochs = []

    def on_train_start(self, _, pl_module):
        pl_module.loss.register_forward_pre_hook(self.note)

    def on_train_epoch_start(self, *_):
        self.epochs.append([])

    def note(self, _, pairs):
        for x, y in zip(*pairs, strict=True):
            self.epochs[-1] += (1 - torch.cosine_similarity(x.flatten(1), y.flatten(1))).tolist()


def test_the_multipliers_of_every_epoch_are_logged(make_engine, parts, tmp_path):
    errors, callback, logger = RemembersErrors(), AmplifyLoss(), CSVLogger(tmp_path, name="", version="")
    fit(make_engine, parts, make_reverse_distillation(), callback, errors, logger=logger, log_every_n_steps=1)
    table = np.genfromtxt(tmp_path / "metrics.csv", delimiter=",", names=True)
    logged = np.stack([table["amplification_median"], table["amplification_p99"]], axis=1)
    logged = logged[~np.isnan(logged).any(axis=1)]
    expected = [np.quantile(1 / (1 - np.array(epoch) / 2), [0.5, 0.99]) for epoch in errors.epochs]
    np.testing.assert_allclose(logged, expected, rtol=1e-5)
    assert callback.multipliers == pytest.approx(expected[-1], rel=1e-5)


def told(make_engine, parts, caplog, callback):
    """Return what the end of a fit tells of LAMP, as information and as warnings."""
    caplog.clear()
    with warnings.catch_warnings(record=True) as record, caplog.at_level(logging.INFO):
        warnings.simplefilter("always")
        fit(make_engine, parts, make_fre(), callback)
    information = [message for message in caplog.messages if message.startswith("LAMP ")]
    return information, [str(w.message) for w in record if "Nothing was amplified" in str(w.message)]


def test_the_end_of_a_fit_tells_once_what_lamp_did_and_when_it_can_hardly_matter(make_engine, parts, caplog):
    callback = AmplifyLoss(first_batches=1)
    (text,), warned = told(make_engine, parts, caplog, callback)
    median, p99 = callback.multipliers
    assert text.startswith(f"LAMP multiplied the gradients of errors by {median:.3f} (median) and {p99:.3f} (99th per")
    assert ("Below 1.05, LAMP can hardly matter." in text) == (p99 < 1.05)
    assert not warned
    callback = AmplifyLoss(amplify=False, first_batches=1)
    (text,), warned = told(make_engine, parts, caplog, callback)
    assert text.startswith("LAMP would have multiplied")


@pytest.mark.parametrize(("p99", "expected"), [(1.049, True), (1.05, False)])
def test_a_99th_percentile_below_1_05_means_that_lamp_can_hardly_matter(p99, expected, caplog):
    callback = AmplifyLoss()
    callback.multipliers = (1.001, p99)
    with caplog.at_level(logging.INFO):
        callback.on_train_end(None, None)
    assert ("LAMP can hardly matter" in caplog.text) == expected


def test_a_fit_that_is_too_short_for_a_scale_is_warned_of(make_engine, parts, caplog):
    information, (warning,) = told(make_engine, parts, caplog, AmplifyLoss())
    assert not information
    assert "the fit ended within the 10 batches that give the scale of errors" in warning


def test_a_resumed_training_keeps_its_scales_and_is_the_unbroken_one(make_engine, parts):
    ordered = {"overfit_batches": 2}  # in the same order, whatever was drawn before
    whole = make_fre()
    fit(make_engine, parts, whole, unbroken := AmplifyLoss(first_batches=1), **ordered)
    half = make_fre()
    first = fit(make_engine, parts, half, AmplifyLoss(first_batches=1), max_epochs=1, **ordered)
    rest, resumed = make_fre(), AmplifyLoss(first_batches=1)
    fit(make_engine, parts, rest, resumed, ckpt_path=first.best_model_path, **ordered)
    assert resumed.state_dict() == unbroken.state_dict()
    torch.testing.assert_close(weights(rest), weights(whole), rtol=0, atol=0)


WITHOUT_US = """
import sys
sys.modules["anomalib_lamp"] = None
import numpy as np
from anomalib.deploy import TorchInferencer
from anomalib.models import Fre
checkpoint, exported = sys.argv[1:]
model = Fre.load_from_checkpoint(checkpoint)
assert not model.loss_fn._forward_hooks
print(TorchInferencer(exported, device="cpu").predict(np.zeros((64, 64, 3), np.float32)).pred_score.item())
"""


def test_checkpoints_and_exports_load_without_this_package(make_engine, parts, tmp_path):
    model = make_fre()
    engine = fit(make_engine, parts, model, AmplifyLoss(first_batches=1), max_epochs=1)
    exported = engine.export(model, ExportType.TORCH, export_root=tmp_path)
    checkpoint = engine.trainer.checkpoint_callback.best_model_path
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_US, checkpoint, exported],
        env={**os.environ, "ANOMALIB_LAMP_AUTOLOAD": "0", "TRUST_REMOTE_CODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert np.isfinite(float(done.stdout.split()[-1]))


def test_a_training_in_bfloat16_stays_finite(make_engine, parts):
    model = make_fre()
    fit(make_engine, parts, model, AmplifyLoss(first_batches=1), precision="bf16-mixed")
    assert torch.isfinite(weights(model)).all()


def test_a_model_without_a_reconstruction_loss_is_refused_when_the_fit_starts(make_engine, parts):
    model = Padim(pre_processor=PreProcessor(Resize((64, 64))), layers=["layer1"], n_features=8, **SMALL)
    with pytest.raises(ValueError, match=r"Padim fits memories or distributions to features, without a loss"):
        make_engine(callbacks=[AmplifyLoss()]).fit(model, datamodule=parts)


def test_an_amplified_model_is_refused_and_keeps_its_first_handle(make_engine, parts):
    model = make_fre()
    handle = amplify_loss(model)
    with pytest.raises(ValueError, match="Expected a Fre that is not amplified"):
        fit(make_engine, parts, model, AmplifyLoss())
    assert not is_plain(model)
    handle.remove()
    assert is_plain(model)


def test_the_command_line_takes_the_callback(parts_root, tmp_path, caplog):
    arguments = {
        "model": "Stfpm",
        "model.backbone": "efficientnet_lite0_packaged",
        "model.layers": "[blocks.1, blocks.2]",
        "data": "SyntheticParts",
        "data.root": str(parts_root),
        **{f"data.{key}": str(value) for key, value in SMALL_PARTS.items()},
        "data.train_batch_size": "2",
        "trainer.callbacks": "anomalib_lamp.AmplifyLoss",
        "trainer.max_epochs": "1",
        "trainer.limit_train_batches": "1",
        "trainer.limit_val_batches": "1",
        "trainer.limit_test_batches": "1",
        "trainer.accelerator": "cpu",
        "default_root_dir": str(tmp_path),
    }
    with caplog.at_level(logging.INFO):
        AnomalibCLI(["train", *(word for key, value in arguments.items() for word in (f"--{key}", value))])
    assert re.search(r"LAMP multiplied the gradients of errors by \d+\.\d{3} \(median\)", caplog.text)
