"""The kept weights are the moving average that did best on held-out images; training goes on beside it."""

import copy
import math

import numpy as np
import pytest
import torch
from helpers import best_average, make_lamp_ae
from lightning.pytorch import Callback
from torch import nn

from anomalib_lamp import LampAE
from anomalib_lamp.callbacks import BestAverage


class Scales(nn.Module):
    """Multiplies by a weight, and keeps a buffer beside it as batch norm does."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("statistic", torch.zeros(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, images):
        return images * self.weight


def set_to(network, value):
    with torch.no_grad():
        network.weight.fill_(value)
        network.statistic.fill_(2 * value)
        network.count.fill_(round(value))


def moving_averages(values):
    """Return the moving average after each value, by a plain loop."""
    averages = [values[0]]
    for count, value in enumerate(values[1:], start=1):
        decay = min(0.98, (1 + count) / (10 + count))
        averages.append(decay * averages[-1] + (1 - decay) * value)
    return averages


def follow_with(network, damage, images):
    best = BestAverage("scales", network, lambda *_: (images, images), damage, nn.functional.mse_loss)
    best.begin(images, images)
    return best


def test_the_average_that_is_best_is_kept():
    network, images = Scales(), torch.full((20, 3, 4, 4), 30.0)
    best = follow_with(network, lambda images: images / 30, images)
    values = np.arange(1.0, 101.0)
    for step, value in enumerate(values, start=1):
        set_to(network, value)
        best.follow(step)
        best.follow(step)  # the second batch of the same step
        best.check()
    expected = min(moving_averages(values), key=lambda average: abs(average - 30))
    assert best.kept["weight"].item() == pytest.approx(expected, rel=1e-4)
    assert best.kept["statistic"].item() == pytest.approx(2 * expected, rel=1e-4)
    assert best.kept_loss == pytest.approx(20 * (expected - 30) ** 2, rel=1e-3)


def test_training_goes_on_after_the_kept_weights_were_shown():
    network, images = Scales(), torch.ones(2, 3, 4, 4)
    best = follow_with(network, lambda images: images, images)
    set_to(network, 1.0)
    best.follow(step=1)
    best.check()
    set_to(network, 5.0)
    best.show()
    best.show()
    assert network.weight == 1
    best.give_back()
    assert network.weight == 5
    best.give_back()
    assert network.weight == 5


def test_nothing_is_saved_without_an_average():
    nothing = torch.empty(0)
    best = BestAverage("scales", Scales(), lambda *_: (nothing, nothing), lambda images: images, nn.functional.mse_loss)
    assert best.state_dict() == {}


def weights(model):
    """Return a copy of the network's parameters; batch norm's statistics change with every look at a batch."""
    return {name: value.detach().clone() for name, value in model.model.network.named_parameters()}


class Watches(Callback):
    """Remembers the network's weights around every validation."""

    def __init__(self):
        self.learnt, self.shown, self.kept, self.learning = [], [], [], []
        self.losses, self.averaged = [], []

    def on_train_batch_end(self, trainer, pl_module, *args):
        del trainer, args
        self.last_learnt = weights(pl_module)

    def on_validation_end(self, trainer, pl_module):
        best = best_average(trainer)
        self.learnt.append(self.last_learnt)
        self.shown.append(copy.deepcopy(dict(pl_module.model.network.state_dict())))
        self.kept.append(copy.deepcopy(dict(best.kept)))
        self.losses.append(best.kept_loss)

    def on_before_backward(self, trainer, pl_module, loss):
        del loss
        best = best_average(trainer)
        self.losses.append(best.kept_loss)
        self.averaged.append(best.average.n_averaged.item())
        if len(self.learning) <= len(self.learnt):
            self.learning.append(weights(pl_module))


def fit(engine, parts, max_steps=8, ckpt_path=None):
    model = make_lamp_ae(max_steps=max_steps)
    engine.fit(model, datamodule=parts, ckpt_path=ckpt_path)
    return model


@pytest.mark.parametrize("limit", [{"max_steps": 8, "val_check_interval": 2}, {"max_epochs": 4}])
def test_the_model_is_validated_saved_and_ended_with_what_is_kept(make_engine, parts, limit):
    watches = Watches()
    engine = make_engine(callbacks=[watches], **limit)
    model = fit(engine, parts)
    assert len(watches.shown) == 4
    for shown, kept in zip(watches.shown, watches.kept, strict=True):
        torch.testing.assert_close(shown, kept)
    for learnt, learning in zip(watches.learnt[:-1], watches.learning[1:], strict=True):
        torch.testing.assert_close(learning, learnt, rtol=0, atol=0)
    torch.testing.assert_close(dict(model.model.network.state_dict()), watches.kept[-1])
    saved = LampAE.load_from_checkpoint(engine.best_model_path).model.network.state_dict()
    torch.testing.assert_close(dict(saved), watches.kept[-1])
    assert best_average(engine.trainer).average is None


def test_an_interrupted_training_goes_on_with_its_weights_and_its_average(make_engine, parts):
    first, second = Watches(), Watches()
    engine = make_engine(callbacks=[first])
    fit(engine, parts, max_steps=4)
    resumed = make_engine(callbacks=[second])
    fit(resumed, parts, max_steps=8, ckpt_path=engine.best_model_path)
    torch.testing.assert_close(second.learning[0], first.learnt[-1], rtol=0, atol=0)
    assert second.losses[0] == first.losses[-1] < math.inf
    assert second.averaged[0] == 4
    assert resumed.trainer.global_step == 8


def test_a_model_that_predicted_with_a_checkpoint_begins_anew(make_engine, parts):
    engine = make_engine()
    fit(engine, parts, max_steps=2)
    watches = Watches()
    again = make_engine(callbacks=[watches])
    model = LampAE.load_from_checkpoint(engine.best_model_path)
    torch.nn.init.zeros_(model.model.network.head.bias)
    begun = weights(model)
    again.fit(model, datamodule=parts)
    torch.testing.assert_close(watches.learning[0], begun, rtol=0, atol=0)
