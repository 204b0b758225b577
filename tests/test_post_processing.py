"""Normalisation without clipping, against exact arithmetic and ranks."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from scipy.special import expit, logit
from scipy.stats import rankdata
from scipy.stats import t as student

from anomalib_lamp.post_processing import MidpointF1Threshold, NormalThreshold, OddsPostProcessor, relative_odds


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
        value = relative_odds(torch.tensor(float(x)), torch.tensor(float(threshold)))
        assert value.item() == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("threshold", [0.0, 1e-4, 0.05, 0.5, 0.999, 1.0])
def test_keeps_the_order_and_the_unit_interval(threshold):
    x = torch.cat([torch.rand(1000) * scale for scale in (1.0, 0.1, 1e-3)])
    y = relative_odds(x, torch.tensor(threshold))
    assert 0 <= y.min() <= y.max() <= 1
    order = torch.argsort(x)
    assert (y[order].diff() >= 0).all()


@pytest.mark.parametrize("threshold", [1e-3, 0.05, 0.5])
def test_values_ten_thousandths_apart_stay_distinct(threshold):
    x = torch.linspace(0, 1, 10_001)
    y = relative_odds(x, torch.tensor(threshold))
    assert len(y.unique()) == len(x)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_half_precision_is_finite_at_the_ends(threshold):
    x = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float16)
    assert torch.isfinite(relative_odds(x, torch.tensor(threshold).half())).all()


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


def normal_batch(scores):
    maps = 0.5 * torch.rand(len(scores), 4, 4) * scores[:, None, None]
    maps[:, 1, 2] = 0.9 * scores
    return ImageBatch(
        image=torch.zeros(len(scores), 3, 4, 4),
        pred_score=scores,
        gt_label=torch.zeros(len(scores), dtype=torch.int),
        anomaly_map=maps,
    )


def validated(batches, **arguments):
    post_processor = OddsPostProcessor(**arguments)
    for batch in batches:
        post_processor.on_validation_batch_end(None, None, batch)
    post_processor.on_validation_epoch_end(None, None)
    return post_processor


@pytest.mark.parametrize("count", [5, 25, 200])
@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_normal_images_exceed_the_threshold_as_often_as_asked(count, rate):
    """Over many validations of normal log-odds, the next normal score exceeds the threshold at the asked rate."""
    trials = 1500
    log_odds = torch.randn(trials, count + 1, dtype=torch.double) - 2
    exceeded = 0
    for values in log_odds:
        metric = NormalThreshold("pred_score", rate)
        metric.log_odds = [values[:-1]]
        exceeded += (torch.sigmoid(values[-1]) > metric.compute()).item()
    expected, spread = rate * trials, (trials * rate * (1 - rate)) ** 0.5
    assert abs(exceeded - expected) < 4 * spread


def test_threshold_is_the_prediction_interval_of_the_log_odds():
    scores = torch.tensor([0.1, 0.12, 0.2, 0.15, 0.11])
    post_processor = validated([normal_batch(scores[:3]), normal_batch(scores[3:])], false_positive_rate=0.05)
    for values, threshold in ((scores, post_processor.image_threshold), (0.9 * scores, post_processor.pixel_threshold)):
        log_odds = logit(values.double().numpy())
        width = student.ppf(0.95, 4) * np.sqrt(1 + 1 / 5) * log_odds.std(ddof=1)
        assert threshold.item() == pytest.approx(expit(log_odds.mean() + width), abs=1e-5)


def test_anomalous_validation_images_do_not_count():
    scores = torch.tensor([0.1, 0.12, 0.2, 0.15, 0.11])
    alone = validated([normal_batch(scores)], false_positive_rate=0.01)
    anomalous = normal_batch(torch.tensor([0.8, 0.9]))
    anomalous.gt_label = torch.ones(2, dtype=torch.int)
    beside = validated([normal_batch(scores), anomalous], false_positive_rate=0.01)
    assert beside.image_threshold == alone.image_threshold
    assert beside.pixel_threshold == alone.pixel_threshold


def test_every_validation_starts_anew():
    post_processor = validated([normal_batch(torch.tensor([0.8, 0.9, 0.7]))], false_positive_rate=0.01)
    scores = torch.tensor([0.1, 0.12, 0.2])
    post_processor.on_validation_batch_end(None, None, normal_batch(scores))
    post_processor.on_validation_epoch_end(None, None)
    expected = validated([normal_batch(scores)], false_positive_rate=0.01)
    assert post_processor.image_threshold == expected.image_threshold


def test_too_few_normal_images_are_named():
    with pytest.warns(UserWarning, match=r"Expected at least 2 normal .* got 1: there is no threshold"):
        post_processor = validated([normal_batch(torch.tensor([0.1]))], false_positive_rate=0.01)
    assert torch.isnan(post_processor.image_threshold)


@pytest.mark.parametrize("rate", [0.0, 0.6, -1])
def test_bad_rates_are_refused(rate):
    with pytest.raises(ValueError, match=r"Expected false_positive_rate in \(0, 0.5\], got"):
        OddsPostProcessor(false_positive_rate=rate)


def test_scores_gathered_from_several_processes_count_alike():
    """When torchmetrics synchronises processes, the list of a state becomes one tensor."""
    scores = torch.tensor([0.1, 0.12, 0.2, 0.15, 0.11])
    metric = NormalThreshold("pred_score", 0.05)
    metric.update(normal_batch(scores))
    alone = metric.compute()
    gathered = NormalThreshold("pred_score", 0.05)
    gathered.update(normal_batch(scores))
    gathered.log_odds = torch.cat(gathered.log_odds)
    assert gathered.compute() == alone


def test_a_restored_rate_holds_in_the_next_validation():
    batches = [normal_batch(torch.tensor([0.1, 0.12, 0.2, 0.15, 0.11]))]
    saved = validated(batches, false_positive_rate=0.05)
    restored = OddsPostProcessor()
    restored.load_checkpoint_config(saved.checkpoint_config())
    restored.on_validation_batch_end(None, None, batches[0])
    restored.on_validation_epoch_end(None, None)
    assert restored.image_threshold == saved.image_threshold


def test_the_defect_that_sets_the_threshold_is_called_anomalous():
    scores, labels = torch.tensor([0.1, 0.2, 0.3, 0.9]), torch.tensor([False, False, False, True])
    post_processor = fitted(scores, labels)
    assert post_processor.image_threshold == pytest.approx(0.6)
    batch = post_processor(InferenceBatch(pred_score=scores, anomaly_map=scores[:, None, None].expand(-1, 4, 4)))
    assert torch.equal(batch.pred_label, labels)
    assert torch.equal(batch.pred_mask.flatten(1).any(1), labels)


@pytest.mark.parametrize("seed", range(5))
def test_the_midpoint_has_the_best_f1_of_all_thresholds(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(30, generator=generator)
    labels = scores + 0.5 * torch.rand(30, generator=generator) > 0.8
    metric = MidpointF1Threshold(fields=["pred_score", "gt_label"])
    metric.update(ImageBatch(image=torch.zeros(30, 3, 4, 4), pred_score=scores, gt_label=labels))
    threshold = metric.compute()

    def f1(value):
        called = scores > value
        return (2 * (called & labels).sum() / (called.sum() + labels.sum())).item()

    ordered = scores.sort().values
    assert f1(threshold) == pytest.approx(max(f1(value) for value in (ordered[:-1] + ordered[1:]) / 2))
    assert (scores - threshold).abs().min() > 0


def test_good_images_alone_are_all_called_good():
    scores, labels = torch.tensor([0.1, 0.2, 0.3]), torch.zeros(3, dtype=torch.bool)
    assert not (scores > fitted(scores, labels).image_threshold).any()
