"""Anomaly maps against plain NumPy and SciPy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from anomalib_lamp.functional import errors_by_metric, reconstruction_error
from anomalib_lamp.models.lamp_ae.anomaly_map import AnomalyMapGenerator


def smooth(maps, sigma):
    return gaussian_filter(maps, (0,) * (maps.ndim - 2) + (sigma, sigma), mode="mirror", truncate=4)


def reference_errors(x, y, metric):
    return [reconstruction_error(x, y, name).mean(1).double().numpy() for name in metric.split("+")]


@pytest.mark.parametrize("metric", ["l1", "l2", "ssim", "msgms", "l1+ssim"])
def test_anomaly_map_is_the_smoothed_mean_error(metric):
    x, y = torch.rand(2, 3, 32, 40), torch.rand(2, 3, 32, 40)
    anomaly_map = AnomalyMapGenerator(metric, sigma=3.0)(x, y)
    assert anomaly_map.shape == (2, 1, 32, 40)
    expected = smooth(np.mean(reference_errors(x, y, metric), axis=0), 3)
    np.testing.assert_allclose(anomaly_map[:, 0].numpy(), expected, atol=1e-5)


def test_calibrated_map_sets_errors_against_those_of_their_place():
    x, y = torch.rand(6, 3, 32, 40), torch.rand(6, 3, 32, 40)
    maps = AnomalyMapGenerator("l1+ssim", sigma=2.0, calibration="location")
    maps.calibrate(errors_by_metric(x[:5], y[:5], maps.metrics))
    by_metric = [error / error[:5].mean() for error in reference_errors(x, y, "l1+ssim")]
    errors = smooth(sum(by_metric), 2)
    normal, new = errors[:5], errors[5]
    mean = smooth(normal.mean(0), 4)
    spread = np.sqrt(smooth(normal.var(0, ddof=1) + (normal.mean(0) - mean) ** 2, 4))
    z = (new - mean / 2) / (spread + 2 * spread.mean())
    np.testing.assert_allclose(maps(x[5:], y[5:])[0, 0].numpy(), 0.5 * (1 + z / (np.abs(z) + 4)), atol=1e-4)
    assert maps.normal_level == maps(x[:5], y[:5]).median()


def test_calibrated_maps_grow_strictly_and_do_not_saturate():
    maps = AnomalyMapGenerator("l1", sigma=0, calibration="location")
    maps.calibrate({"l1": 0.001 * torch.rand(4, 32, 32)})
    errors = torch.linspace(0, 1, 101)[:, None, None].expand(-1, 32, 32)
    values = maps.map_of({"l1": errors})[:, 0, 16, 16].tolist()
    assert 0 < values[0] < values[-1] < 1
    assert (np.diff(values) > 0).all()


def test_calibrated_maps_ask_for_normal_errors_of_their_size():
    maps = AnomalyMapGenerator("l1", calibration="location")
    with pytest.raises(ValueError, match=r"Expected normal errors of size \(32, 40\) .* got \(0, 0\)"):
        maps(torch.rand(1, 3, 32, 40), torch.rand(1, 3, 32, 40))
