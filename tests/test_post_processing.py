"""Normalisation without clipping, against exact arithmetic and ranks."""

from fractions import Fraction

import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from scipy.stats import rankdata

from anomalib_lamp.post_processing import OddsPostProcessor


def fitted(scores, labels):
    """Return a post-processor that has seen a validation batch."""
    post_processor = OddsPostProcessor()
    maps = scores[:, None, None].expand(-1, 4, 4)
    masks = labels[:, None, None].expand(-1, 4, 4)
    batch = ImageBatch(
        image=torch.zeros(len(scores), 3, 4, 4), pred_score=scores, gt_label=labels, anomaly_map=maps, gt_mask=masks
    )
    post_processor.on_validation_batch_end(None, None, batch)
    post_processor.on_validation_epoch_end(None, None)
    return post_processor


def test_equals_relative_odds_in_exact_arithmetic():
    threshold = Fraction(1, 20)
    for x in (Fraction(0), Fraction(1, 100), threshold, Fraction(3, 10), Fraction(99, 100), Fraction(1)):
        expected = x * (1 - threshold) / (x * (1 - threshold) + threshold * (1 - x))
        value = OddsPostProcessor._normalize(torch.tensor(float(x)), None, None, torch.tensor(float(threshold)))
        assert value.item() == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("threshold", [0.0, 1e-4, 0.05, 0.5, 0.999, 1.0])
def test_keeps_the_order_and_the_unit_interval(threshold):
    x = torch.cat([torch.rand(1000) * scale for scale in (1.0, 0.1, 1e-3)])
    y = OddsPostProcessor._normalize(x, None, None, torch.tensor(threshold))
    assert 0 <= y.min() <= y.max() <= 1
    order = torch.argsort(x)
    assert (y[order].diff() >= 0).all()


@pytest.mark.parametrize("threshold", [1e-3, 0.05, 0.5])
def test_values_ten_thousandths_apart_stay_distinct(threshold):
    x = torch.linspace(0, 1, 10_001)
    y = OddsPostProcessor._normalize(x, None, None, torch.tensor(threshold))
    assert len(y.unique()) == len(x)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_half_precision_is_finite_at_the_ends(threshold):
    x = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float16)
    assert torch.isfinite(OddsPostProcessor._normalize(x, None, None, torch.tensor(threshold).half())).all()


def test_values_outside_the_validated_range_stay_distinct():
    """Thresholds from normal images only must not flatten the anomalous ones, as clipping would."""
    post_processor = fitted(torch.tensor([0.01, 0.012, 0.014]), torch.tensor([0, 0, 0]))
    scores = torch.tensor([0.005, 0.01, 0.02, 0.03, 0.2, 0.21, 0.6])
    result = post_processor(InferenceBatch(pred_score=scores[:, None], anomaly_map=scores[:, None, None, None]))
    assert list(rankdata(result.pred_score.flatten())) == [1, 2, 3, 4, 5, 6, 7]


def test_labels_follow_the_f1_threshold_of_validation():
    scores, labels = torch.tensor([0.01, 0.02, 0.03, 0.1, 0.2]), torch.tensor([0, 0, 0, 1, 1])
    post_processor = fitted(scores, labels)
    result = post_processor(InferenceBatch(pred_score=scores, anomaly_map=scores[:, None, None, None]))
    normal_side, anomalous_side = result.pred_score[labels == 0], result.pred_score[labels == 1]
    assert normal_side.max() < 0.5
    assert anomalous_side.min() >= 0.5


def test_without_validation_scores_stay_as_they_are():
    scores = torch.tensor([0.1, 0.7])
    result = OddsPostProcessor()(InferenceBatch(pred_score=scores, anomaly_map=None))
    assert torch.equal(result.pred_score, scores)
    assert result.anomaly_map is None
