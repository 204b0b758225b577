"""The poster's own numbers are all there, averages, wins and losses as published; sweeps are set beside them."""

import runpy

import pandas as pd
import pytest
from conftest import REPOSITORY
from generated import make_record

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


def mnist_record(digit, batch_size, amplify, seed, quality):
    data = {"init_args": {"normal_digit": digit, "train_batch_size": batch_size}}
    return make_record(
        f"mnist {digit} {batch_size}",
        f"autoencoder {amplify}",
        seed,
        quality,
        config={"data": data},
        grid={"amplify": amplify},
    )


def table_of(records, tmp_path, capsys, table):
    (tmp_path / "jobs").mkdir()
    for record in records:
        (tmp_path / "jobs" / f"{record.job}.json").write_text(record.model_dump_json() + "\n")
    runpy.run_path(str(REPOSITORY / "benchmarks" / "poster_table.py"))["main"](tmp_path, table)
    return capsys.readouterr().out.splitlines()


def test_mnist_sweep_beside_the_poster(tmp_path, capsys):
    records = [
        mnist_record(digit, 16, amplify, seed, 0.8 + 0.01 * digit + 0.02 * amplify)
        for digit in range(10)
        for amplify in (False, True)
        for seed in (0, 1)
    ]
    head, _, row, _, words = table_of(records, tmp_path, capsys, "mnist")
    assert [cell.strip() for cell in head.split("|")[1:4]] == ["batch_size", "base", "LAMP"]
    assert row == "| 16 | 0.845 | 0.865 | +0.0200 [+0.0200, +0.0200] | 20 | 0.926 | 0.929 |"
    assert words.startswith("LAMP - base over 20 pairs: +0.0200 [+0.0200, +0.0200], wins 20, ties 0, losses 0")


def test_a_sweep_without_pairs_is_shown_as_far_as_it_is(tmp_path, capsys):
    *_, row, _, words = table_of([mnist_record(3, 1, False, 0, 0.9)], tmp_path, capsys, "mnist")
    assert row == "| 1 | 0.900 |  |  | 0 | 0.919 | 0.927 |"
    assert words == "No pair of LAMP and base yet."


def test_mvtec_sweep_beside_the_poster(tmp_path, capsys):
    records = [
        make_record(
            "bottle",
            f"paper {optimizer} {amplify}",
            quality=quality,
            config={"data": {"init_args": {"category": "bottle"}}},
            grid={"base_loss": "l2", "optimizer": optimizer, "amplify": amplify},
        )
        for optimizer, amplify, quality in [
            ("sgd", False, 0.9),
            ("sgd", True, 0.8),
            ("adam", False, 0.7),
            ("adam", True, 0.9),
        ]
    ]
    _, _, *rows, _, words = table_of(records, tmp_path, capsys, "mvtec")
    assert rows[0] == "| bottle | l2 | sgd | 0.900 | 0.800 | -0.1000 | 1 | 0.987 | 0.983 |"
    assert len(rows) == 2
    assert "over 2 pairs: +0.0500" in words
    assert "wins 1, ties 0, losses 1" in words
