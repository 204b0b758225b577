"""The area under the ROC curve: how often an anomalous value scores above a normal one."""

import numpy as np
import pytest
import torch

from anomalib_lamp.auroc import auroc


def test_equals_counting_pairs_with_ties():
    rng = np.random.default_rng(0)
    labels, scores = rng.random((20, 10)) < 0.3, rng.random((20, 10)).round(1)
    above = scores[labels][:, None] - scores[~labels]
    assert auroc(labels, scores) == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean())


def test_takes_tensors_and_lists():
    labels, scores = [False, True, True, False], [0.1, 0.4, 0.9, 0.4]
    assert auroc(torch.tensor(labels), torch.tensor(scores, requires_grad=True)) == auroc(labels, scores) == 0.875


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
def test_is_undefined_for_one_class(labels):
    assert auroc(labels, [0.5] * len(labels)) is None
