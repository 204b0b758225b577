"""What is known of normal errors: the level of an image, and what it says about the largest errors."""

import numpy as np
import pytest
import torch

from anomalib_lamp.models.lamp_ae.anomaly_map import AnomalyMapGenerator


def border(height, width):
    """Weights of the border, by a plain loop."""
    ramp = min(height, width) / 16
    return np.array(
        [
            [0.5 + 0.5 * min(1, min(y + 1, x + 1, height - y, width - x) / ramp) for x in range(width)]
            for y in range(height)
        ]
    )


def levels_by_numpy(errors):
    patches = errors.reshape(len(errors), 16, 2, 16, 2).mean((2, 4)).reshape(len(errors), -1)
    return np.sort(patches, axis=1)[:, 128]


def test_an_images_own_level_is_divided_out_where_it_makes_the_peaks():
    errors = 0.4 * torch.linspace(0.1, 1, 12)[:, None, None, None] * torch.rand(12, 1, 32, 32)
    maps = AnomalyMapGenerator("l1", sigma=0)
    maps.calibrate({"l1": errors[:, 0]})
    levels = levels_by_numpy(errors[:, 0].numpy())
    peaks = (errors[:, 0].numpy() * border(32, 32)).max((1, 2))
    slope, explained = np.polyfit(np.log(levels), np.log(peaks), 1)[0], np.corrcoef(np.log(levels), np.log(peaks))
    expected = slope * (1 - (1 - explained[0, 1] ** 2) * 11 / 10)
    assert maps.level_exponent.item() == pytest.approx(expected, abs=1e-4)
    assert 0.8 < expected < 1
    usual = np.sort(levels)[5]  # torch's median of an even number is the lower one
    odds = (errors / (1 - errors))[:, 0].numpy() * (usual / levels)[:, None, None] ** expected
    np.testing.assert_allclose(maps.map_of({"l1": errors[:, 0]})[:, 0].numpy(), odds / (1 + odds), rtol=1e-3)


@pytest.mark.parametrize("count", [7, 100])
def test_levels_stay_where_peaks_do_not_depend_on_them_or_images_are_few(count):
    errors = 0.1 * torch.rand(count, 1, 1, 1).expand(-1, 1, 32, 32).clone()
    errors[..., 16, 16] = 0.5 if count > 7 else 3 * errors[..., 0, 0]
    maps = AnomalyMapGenerator("l1", sigma=0)
    maps.calibrate({"l1": errors[:, 0]})
    assert maps.level_exponent == 0
    torch.testing.assert_close(maps.map_of({"l1": errors[:, 0]}), errors)
