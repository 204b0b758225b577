"""The MNIST benchmark learns one digit, finds the others, leaves out what is done and counts pairs rightly."""

import json

import mnist
import numpy as np
import pandas as pd
import pytest
import torch

KEYS = list(mnist.Run._fields)


@pytest.fixture
def bars(monkeypatch):
    """Stand in for MNIST: digit d is a bright bar at rows 2d and 2d + 1 over faint noise."""

    def load(root, *, train):
        del root
        digits = torch.arange(160 if train else 40) % 10
        images = 0.1 * torch.rand(len(digits), 1, 28, 28, generator=torch.Generator().manual_seed(int(train)))
        for image, digit in zip(images, digits, strict=True):
            image[:, 2 * digit : 2 * digit + 2, 4:24] = 1
        return images, digits

    monkeypatch.setattr(mnist, "load", load)
    monkeypatch.setattr(mnist, "EPOCHS", {4: 20})


@pytest.mark.parametrize("amplify", [False, True])
@pytest.mark.usefixtures("bars")
def test_other_digits_are_found(tmp_path, amplify):
    result = mnist.train_and_test(tmp_path, mnist.Run(seed=0, batch_size=4, digit=3, amplify=amplify))
    assert result["image_AUROC"] > 0.9
    assert [result[key] for key in KEYS] == [0, 4, 3, amplify]


@pytest.mark.usefixtures("bars")
@pytest.mark.slow
def test_a_run_is_repeatable_and_amplification_changes_it(tmp_path):
    images, digits = mnist.load(tmp_path, train=True)
    scores = []
    for amplify in (True, True, False):
        torch.manual_seed(0)
        model = mnist.LampAEModel(**mnist.MODEL)
        mnist.train(model, images[digits == 3], mnist.Run(0, 4, 3, amplify))
        scores.append(mnist.score(model, images, torch.device("cpu")))
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])


def test_runs_that_are_there_are_left_out(tmp_path):
    out = tmp_path / "mnist.jsonl"
    runs = mnist.runs_without_result(out, [0, 1])
    assert len(runs) == len(set(runs)) == 2 * 6 * 10 * 2
    assert [run.seed for run in runs] == [0] * 120 + [1] * 120
    out.write_text("".join(json.dumps(run._asdict()) + "\n" for run in runs[:7]))
    assert mnist.runs_without_result(out, [0, 1]) == runs[7:]


def test_pairs_are_made_by_digit_and_seed():
    base = {(digit, seed): 0.8 + 0.01 * digit + 0.001 * seed for digit in range(10) for seed in (0, 1)}
    rows = [(seed, 16, digit, False, value) for (digit, seed), value in base.items()]
    rows += [(seed, 16, digit, True, value + (0.04 if digit else -0.02)) for (digit, seed), value in base.items()]
    rows += [(2, 16, 0, True, 0.1)]  # without a partner
    results = pd.DataFrame(rows, columns=[*KEYS, "image_AUROC"]).sample(frac=1, random_state=0)
    _, _, row = mnist.table(results).splitlines()
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[:3] == ["16", f"{np.mean(list(base.values())):.3f}", f"{np.mean(list(base.values())) + 0.034:.3f}"]
    assert cells[3].startswith("+0.0340 [")
    assert cells[4:] == ["18, 0, 2", "20", "0.926", "0.929"]
