"""The poster's own numbers are all there: averages, wins and losses as published."""

import pandas as pd
import pytest
from conftest import REPOSITORY

POSTER = REPOSITORY / "benchmarks" / "poster"
AVERAGES = {
    ("l2", "sgd"): (0.840, 0.851),
    ("l2", "rmsprop"): (0.885, 0.891),
    ("l2", "adam"): (0.874, 0.861),
    ("l1", "sgd"): (0.837, 0.848),
    ("l1", "rmsprop"): (0.878, 0.877),
    ("l1", "adam"): (0.860, 0.864),
    ("ssim", "sgd"): (0.798, 0.799),
    ("ssim", "rmsprop"): (0.874, 0.863),
    ("ssim", "adam"): (0.863, 0.863),
}


def test_columns_have_the_published_averages():
    table = pd.read_csv(POSTER / "mvtec.csv")
    assert len(table) == 15 * len(AVERAGES)
    for (loss, optimizer), published in AVERAGES.items():
        column = table[(table.base_loss == loss) & (table.optimizer == optimizer)]
        assert tuple(column[["base", "lamp"]].mean()) == pytest.approx(published, abs=6e-4)


def test_cells_are_counted_as_published():
    table = pd.read_csv(POSTER / "mvtec.csv")
    difference = (table.lamp - table.base).round(3)
    assert ((difference > 0).sum(), (difference == 0).sum(), (difference < 0).sum()) == (63, 8, 64)


def test_mnist_table():
    table = pd.read_csv(POSTER / "mnist.csv")
    assert list(table.batch_size) == [1024, 128, 32, 16, 4, 1]
    assert (table.lamp > table.base).all()
