"""The image score of LampAE."""

import numpy as np
import pytest
import torch

from anomalib_lamp.models.lamp_ae.anomaly_map import AnomalyMapGenerator
from anomalib_lamp.models.lamp_ae.score import ScoreGenerator, pool_score

METRICS = {"ssim": 1.0, "l1": 2.5}


def errors_of(count):
    return {name: torch.rand(count, 32, 40) * torch.rand(count, 1, 1) for name in METRICS}


def log_odds_of_peaks(normal, errors, calibration):
    """The peaks of maps that are made and calibrated one by one, (maps, images)."""
    peaks = []
    for metric, sigma in METRICS.items():
        maps = AnomalyMapGenerator(metric, sigma, calibration)
        maps.calibrate(normal)
        peaks.append(maps.to_score(maps.map_of(errors)).numpy().astype(float).max((1, 2, 3)))
    return np.log(peaks) - np.log1p(-np.array(peaks))


@pytest.mark.parametrize("calibration", ["none", "location"])
def test_scores_are_mean_standardised_log_odds_of_peaks(calibration):
    normal, errors = errors_of(12), errors_of(5)
    scores = ScoreGenerator(METRICS, calibration)
    scores.calibrate(normal)
    usual = log_odds_of_peaks(normal, normal, calibration)
    new = log_odds_of_peaks(normal, errors, calibration)
    z = ((new - usual.mean(1)[:, None]) / usual.std(1, ddof=1)[:, None]).mean(0)
    np.testing.assert_allclose(scores(errors)[:, 0].numpy(), 0.5 * (1 + z / (np.abs(z) + 4)), atol=1e-4)


def test_peaks_of_fewer_than_eight_images_are_not_standardised():
    normal, errors = errors_of(7), errors_of(5)
    scores = ScoreGenerator(METRICS, "location")
    scores.calibrate(errors_of(12))
    scores.calibrate(normal)
    z = log_odds_of_peaks(normal, errors, "location").mean(0)
    np.testing.assert_allclose(scores(errors)[:, 0].numpy(), 0.5 * (1 + z / (np.abs(z) + 4)), atol=1e-4)


def test_peaks_that_are_all_alike_give_finite_scores():
    scores = ScoreGenerator({"l1": 0.0})
    scores.calibrate({"l1": torch.full((8, 32, 32), 0.1)})
    errors = torch.tensor([0.0, 0.1, 0.11, 1.0])[:, None, None].expand(-1, 32, 32)
    values = scores({"l1": errors})[:, 0]
    assert (values.diff() > 0).all()
    assert 0 < values[0] < values[1] == 0.5 < values[3] < 1


def test_pooling_equals_numpy():
    maps = torch.rand(3, 1, 20, 10)
    flat = maps.numpy().reshape(3, -1)
    np.testing.assert_allclose(pool_score(maps, "max").numpy()[:, 0], flat.max(1))
    np.testing.assert_allclose(pool_score(maps, "mean").numpy()[:, 0], flat.mean(1), rtol=1e-5)
    largest = np.sort(flat, axis=1)[:, -20:]
    np.testing.assert_allclose(pool_score(maps, "topk", 0.1).numpy()[:, 0], largest.mean(1), rtol=1e-5)
    np.testing.assert_allclose(pool_score(maps, "topk", 1e-9).numpy()[:, 0], flat.max(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": {}}, "at least one metric"),
        ({"metrics": {"lpips": 1.0}}, "got 'lpips'"),
        ({"metrics": {"l1": -1.0}}, r"smoothing .* got -1"),
        ({"metrics": METRICS, "pooling": "median"}, r"\['max', 'mean', 'topk'\], got 'median'"),
    ],
)
def test_rejects_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ScoreGenerator(**arguments)
