"""Optimisers and schedules by name, against torch's own."""

import math

import pytest
import torch
from torch import nn

from anomalib_lamp.optim import configure_optimizer, cosine_scale


def test_names_give_torchs_classes_with_documented_rates():
    for name, cls, rate in [
        ("adam", torch.optim.Adam, 1e-3),
        ("adamw", torch.optim.AdamW, 1e-3),
        ("rmsprop", torch.optim.RMSprop, 5e-4),
        ("sgd", torch.optim.SGD, 0.5 / 300),
    ]:
        optimizer = configure_optimizer(nn.Linear(1, 1).parameters(), name, summed_elements=300)["optimizer"]
        assert type(optimizer) is cls
        assert optimizer.defaults["lr"] == pytest.approx(rate)


def test_cosine_equals_torchs_annealing_after_the_warm_up():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=95)
    scale = cosine_scale(100)
    for step in range(5, 100):
        assert scale(step) == pytest.approx(reference.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        reference.step()


@pytest.mark.parametrize("total", [1, 2, 19, 1000])
def test_scale_is_positive_on_every_step_and_at_most_one(total):
    values = [cosine_scale(total)(step) for step in range(total)]
    assert all(0 < value <= 1 for value in values)


def test_an_endless_training_keeps_its_rate(caplog):
    scheduler = configure_optimizer(nn.Linear(1, 1).parameters(), total_steps=math.inf)["lr_scheduler"]["scheduler"]
    assert "stays constant" in caplog.text
    assert scheduler.lr_lambdas[0](10**6) == 1
