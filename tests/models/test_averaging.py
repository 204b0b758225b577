"""The kept weights are the moving average that did best on held-out images; learning goes on beside it."""

import copy

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from anomalib_lamp import LampAE
from anomalib_lamp.models.lamp_ae.averaging import BestAverage


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


def test_the_average_that_is_best_is_kept():
    network, images = Scales(), torch.ones(20, 3, 4, 4)
    best = BestAverage(network, images, 30 * images, nn.functional.mse_loss)
    values = np.arange(1.0, 101.0)
    for step, value in enumerate(values, start=1):
        set_to(network, value)
        best.follow(network, step)
        best.follow(network, step)  # the second batch of the same step
        best.check()
    expected = min(moving_averages(values), key=lambda average: abs(average - 30))
    assert best.kept["weight"].item() == pytest.approx(expected, rel=1e-4)
    assert best.kept["statistic"].item() == pytest.approx(2 * expected, rel=1e-4)
    assert best.loss_of_kept == pytest.approx(20 * (expected - 30) ** 2, rel=1e-3)


def test_learning_goes_on_after_the_kept_weights_were_shown():
    network, images = Scales(), torch.ones(2, 3, 4, 4)
    best = BestAverage(network, images, images, nn.functional.mse_loss)
    set_to(network, 1.0)
    best.follow(network, step=1)
    best.check()
    set_to(network, 5.0)
    best.show(network)
    best.show(network)
    assert network.weight == 1
    best.learn_on(network)
    assert network.weight == 5
    best.learn_on(network)
    assert network.weight == 5


class Watches(Callback):
    """Remembers the network's weights around every validation."""

    def __init__(self):
        self.learning, self.shown, self.after, self.kept = [], [], [], []

    def on_train_batch_end(self, trainer, pl_module, *args):
        del trainer, args
        self.before = copy.deepcopy(pl_module.model.network.state_dict())

    def on_validation_end(self, trainer, pl_module):
        del trainer
        self.learning.append(self.before)
        self.shown.append(copy.deepcopy(pl_module.model.network.state_dict()))
        self.kept.append(copy.deepcopy(pl_module._best.kept))

    def on_train_batch_start(self, trainer, pl_module, *args):
        del trainer, args
        if len(self.after) < len(self.learning):
            self.after.append(copy.deepcopy(pl_module.model.network.state_dict()))


def test_the_model_is_validated_saved_and_ended_with_what_is_kept(make_engine, parts):
    watches = Watches()
    engine = make_engine(callbacks=[watches])
    model = LampAE(width=4, depth=3, image_size=64, max_steps=8, seed=0, visualizer=False)
    engine.fit(model, datamodule=parts)
    assert len(watches.shown) == 4
    for shown, kept in zip(watches.shown, watches.kept, strict=True):
        torch.testing.assert_close(shown, kept)
    for learning, after in zip(watches.learning[:-1], watches.after, strict=True):
        torch.testing.assert_close(learning, after, rtol=0, atol=0)
    torch.testing.assert_close(dict(model.model.network.state_dict()), dict(watches.kept[-1]))
    saved = LampAE.load_from_checkpoint(engine.best_model_path).model.network.state_dict()
    torch.testing.assert_close(dict(saved), dict(watches.kept[-1]))
    assert model._best is None
