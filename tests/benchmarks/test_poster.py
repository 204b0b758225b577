"""The poster's own numbers are all there, averages, wins and losses as published; sweeps are set beside them."""

import pandas as pd
import poster_table
import pytest
from helpers import REPOSITORY, make_record

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


def table_of(records, tmp_path, capsys):
    (tmp_path / "jobs").mkdir()
    for record in records:
        (tmp_path / "jobs" / f"{record.job}.json").write_text(record.model_dump_json() + "\n")
    poster_table.main(tmp_path)
    return capsys.readouterr().out.splitlines()


def mvtec_record(optimizer, amplify, quality):
    return make_record(
        "bottle",
        f"paper {optimizer} {amplify}",
        quality=quality,
        config={"data": {"init_args": {"category": "bottle"}}},
        grid={"base_loss": "l2", "optimizer": optimizer, "amplify": amplify},
    )


def test_a_sweep_without_pairs_is_shown_as_far_as_it_is(tmp_path, capsys):
    *_, row, _, words = table_of([mvtec_record("sgd", False, 0.9)], tmp_path, capsys)
    assert row == "| bottle | l2 | sgd | 0.900 |  |  | 0 | 0.987 | 0.983 |"
    assert words == "No pair of LAMP and base yet."


def test_mvtec_sweep_beside_the_poster(tmp_path, capsys):
    records = [
        mvtec_record("sgd", False, 0.9),
        mvtec_record("sgd", True, 0.8),
        mvtec_record("adam", False, 0.7),
        mvtec_record("adam", True, 0.9),
    ]
    _, _, *rows, _, words = table_of(records, tmp_path, capsys)
    assert rows[0] == "| bottle | l2 | sgd | 0.900 | 0.800 | -0.1000 | 1 | 0.987 | 0.983 |"
    assert len(rows) == 2
    assert "over 2 pairs: +0.0500" in words
    assert "wins 1, ties 0, losses 1" in words
