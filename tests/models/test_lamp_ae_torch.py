"""The networks, maps and scores of LampAE, without Lightning."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from anomalib_lamp.functional import reconstruction_error
from anomalib_lamp.models.lamp_ae import LampAEModel
from anomalib_lamp.models.lamp_ae.anomaly_map import AnomalyMapGenerator, errors_by_metric
from anomalib_lamp.models.lamp_ae.calibration import Choice, calibrate

ARCHITECTURES = [
    {"architecture": "autoencoder"},
    {"architecture": "unet"},
    {"architecture": "unet", "skip_connections": False},
]


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("arguments", ARCHITECTURES)
@pytest.mark.parametrize("size", [(32, 32), (40, 56), (33, 47)])
def test_reconstructs_any_size_into_the_unit_interval(arguments, size):
    model = LampAEModel(width=4, depth=3, **arguments)
    reconstruction = model(torch.rand(2, 3, *size))
    assert reconstruction.shape == (2, 3, *size)
    assert reconstruction.min() >= 0
    assert reconstruction.max() <= 1


@pytest.mark.parametrize("arguments", ARCHITECTURES)
def test_every_parameter_learns(arguments):
    model = LampAEModel(width=4, depth=3, **arguments)
    images = torch.rand(2, 3, 32, 32)
    (model(images) - images).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize("arguments", ARCHITECTURES)
def test_width_and_depth_change_the_size(arguments):
    small = count(LampAEModel(width=4, depth=3, **arguments))
    assert count(LampAEModel(width=8, depth=3, **arguments)) > small
    assert count(LampAEModel(width=4, depth=4, **arguments)) > small


def test_channels_stop_growing_at_512():
    assert LampAEModel("unet", width=600, depth=2)(torch.rand(1, 3, 16, 16)).shape == (1, 3, 16, 16)


def test_a_single_smallest_image_trains():
    model = LampAEModel(width=4, depth=3)
    assert model(torch.rand(1, 3, model.smallest_side, model.smallest_side)).requires_grad


def test_skip_connections_pass_detail_that_a_bottleneck_cannot():
    """A change of one pixel reaches its neighbourhood through the skips even if the middle is cut off."""
    torch.manual_seed(0)
    model = LampAEModel("unet", width=4, depth=4).eval()
    for parameter in model.network.middle.parameters():
        parameter.data.zero_()
    images = torch.rand(1, 3, 64, 64)
    changed = images.clone()
    changed[..., 16, 16] = 1 - changed[..., 16, 16]
    assert (model.reconstruct(images) != model.reconstruct(changed)).any()
    without = LampAEModel("unet", width=4, depth=4, skip_connections=False).eval()
    for parameter in without.network.middle.parameters():
        parameter.data.zero_()
    assert torch.equal(without.reconstruct(images), without.reconstruct(changed))


def border(height, width):
    """Weights of the border, by a plain loop."""
    ramp = min(height, width) / 16
    return np.array(
        [
            [0.5 + 0.5 * min(1, min(y + 1, x + 1, height - y, width - x) / ramp) for x in range(width)]
            for y in range(height)
        ]
    )


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


def test_map_for_the_score_counts_less_at_the_border():
    maps = AnomalyMapGenerator("l1")
    anomaly_map = torch.rand(2, 1, 32, 40)
    np.testing.assert_allclose(maps.to_score(anomaly_map).numpy(), anomaly_map.numpy() * border(32, 40), atol=1e-6)
    maps.normal_level = torch.tensor(0.4)
    expected = 0.4 + (anomaly_map.numpy() - 0.4) * border(32, 40)
    np.testing.assert_allclose(maps.to_score(anomaly_map).numpy(), expected, atol=1e-6)


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


def test_decisions_and_statistics_are_part_of_the_state():
    model = LampAEModel(width=4, depth=3).eval()
    images = torch.rand(4, 3, 32, 32)
    calibrate(model, images, metrics=["l1+ssim"], calibrations=["location"], poolings=["topk"])
    other = LampAEModel(width=4, depth=3).eval()
    other.load_state_dict(model.state_dict())
    assert (other.anomaly_map_generator.metric, other.score_generator.pooling) == ("l1+ssim", "topk")
    torch.testing.assert_close(other(images).anomaly_map, model(images).anomaly_map)
    torch.testing.assert_close(other(images).pred_score, model(images).pred_score)


def test_predictions_are_within_the_unit_interval_even_at_the_worst():
    class Negative(torch.nn.Module):
        def forward(self, images):
            return 1 - images

    for metric in ("l1", "l2", "ssim", "msgms"):
        model = LampAEModel(width=4, depth=3, map_metric=metric, score_metrics={metric: 2.5}).eval()
        model.network = Negative()
        predictions = model(torch.rand(2, 3, 32, 32).round())
        assert 0 <= predictions.anomaly_map.min() <= predictions.anomaly_map.max() <= 1
        assert predictions.pred_score.shape == (2, 1)
        assert 0 < predictions.pred_score.min() <= predictions.pred_score.max() < 1
        for_scores = model.anomaly_map_generator.to_score(predictions.anomaly_map)
        z = torch.logit(for_scores.amax((1, 2, 3)), eps=1e-7)
        torch.testing.assert_close(predictions.pred_score[:, 0], 0.5 * (1 + z / (z.abs() + 4)))


class Repairs(torch.nn.Module):
    """Returns grey whatever comes, but is wrong at the same place of every image."""

    def forward(self, images):
        repaired = torch.full_like(images, 0.5)
        repaired[..., 4:12, 4:12] = 0.9
        return repaired


@pytest.fixture
def model_with_a_weak_place():
    model = LampAEModel(width=4, depth=3, smoothing=1.0).eval()
    model.network = Repairs()
    return model


def grey_images(count=8):
    return 0.5 + 0.01 * torch.randn(count, 3, 64, 64)


def test_calibration_is_chosen_where_normal_errors_keep_their_place(model_with_a_weak_place):
    images = grey_images()
    choice = calibrate(model_with_a_weak_place, images)
    assert choice.calibration == "location"
    assert model_with_a_weak_place.anomaly_map_generator.calibration == "location"
    without = max(
        calibrate(model_with_a_weak_place, images, [metric], ["none"], ["max", "topk"]).quality
        for metric in ("ssim+msgms", "msgms", "l1+ssim")
    )
    assert without + 0.1 < choice.quality <= 1


@pytest.mark.parametrize(("uncalibrated", "chosen"), [(0.95, "none"), (0.91, "location"), (0.85, "location")])
def test_an_uncalibrated_map_has_to_be_clearly_better(model_with_a_weak_place, monkeypatch, uncalibrated, chosen):
    quality = {"none": uncalibrated, "location": 0.9}
    where = "anomalib_lamp.models.lamp_ae.calibration"
    monkeypatch.setattr(f"{where}._pixel_auroc", lambda *how: quality[how[3]])
    monkeypatch.setattr(f"{where}._image_auroc", lambda *how: quality[how[2]])
    assert calibrate(model_with_a_weak_place, grey_images()).calibration == chosen
    assert model_with_a_weak_place.anomaly_map_generator.calibration == chosen


def test_choice_is_repeatable_and_leaves_the_generators_alone(model_with_a_weak_place):
    images = grey_images()
    state = torch.get_rng_state()
    first = calibrate(model_with_a_weak_place, images)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(3)
    assert calibrate(model_with_a_weak_place, images) == first


def test_calibration_needs_four_images(model_with_a_weak_place):
    with pytest.raises(ValueError, match="at least 4 normal images to calibrate with, got 3"):
        calibrate(model_with_a_weak_place, grey_images(3))


def test_nothing_to_choose_has_no_quality(model_with_a_weak_place):
    choice = calibrate(model_with_a_weak_place, grey_images(4), ["l1"], ["none"], ["max"])
    assert choice == Choice("l1", "none", "max", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "resnet"}, r"\['autoencoder', 'unet'\], got 'resnet'"),
        ({"width": 0}, "width >= 1"),
        ({"depth": 1}, "depth >= 2"),
        ({"map_metric": "lpips"}, r"map_metric .* got 'lpips'"),
        ({"map_metric": "l1+auto"}, r"map_metric .* got 'l1\+auto'"),
        ({"smoothing": -1}, "smoothing .* got -1"),
        ({"calibration": "image"}, r"\['none', 'location'\], got 'image'"),
        ({"pooling": "median"}, r"\['max', 'mean', 'topk'\], got 'median'"),
        ({"topk_fraction": 0}, r"topk_fraction in \(0, 1\], got 0"),
    ],
)
def test_rejects_bad_arguments_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        LampAEModel(**arguments)


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (3, 32, 32), (1, 3, 4, 32)])
def test_rejects_images_of_the_wrong_shape(shape):
    with pytest.raises(
        ValueError, match=r"Expected images of shape \(N, 3, H, W\) with H and W at least 16, got shape"
    ):
        LampAEModel(width=4, depth=3)(torch.rand(shape))
