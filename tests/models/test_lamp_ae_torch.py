"""The networks, maps and scores of LampAE, without Lightning."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from anomalib_lamp.functional import reconstruction_error
from anomalib_lamp.models.lamp_ae import LampAEModel
from anomalib_lamp.models.lamp_ae.anomaly_map import AnomalyMapGenerator, pool_score

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
    model = LampAEModel("unet", width=4, depth=3).eval()
    for parameter in model.network.middle.parameters():
        parameter.data.zero_()
    images = torch.rand(1, 3, 32, 32)
    changed = images.clone()
    changed[..., 16, 16] = 1 - changed[..., 16, 16]
    assert (model.reconstruct(images) != model.reconstruct(changed)).any()
    without = LampAEModel("unet", width=4, depth=3, skip_connections=False).eval()
    for parameter in without.network.middle.parameters():
        parameter.data.zero_()
    assert torch.equal(without.reconstruct(images), without.reconstruct(changed))


@pytest.mark.parametrize("metric", ["l1", "l2", "ssim", "msgms"])
def test_anomaly_map_is_the_smoothed_mean_error(metric):
    x, y = torch.rand(2, 3, 32, 40), torch.rand(2, 3, 32, 40)
    expected = gaussian_filter(
        reconstruction_error(x, y, metric).mean(1, keepdim=True).numpy(), (0, 0, 3, 3), mode="mirror", truncate=4
    )
    anomaly_map = AnomalyMapGenerator(metric, sigma=3.0)(x, y)
    assert anomaly_map.shape == (2, 1, 32, 40)
    np.testing.assert_allclose(anomaly_map.numpy(), expected, atol=1e-5)


def test_pooling_equals_numpy():
    maps = torch.rand(3, 1, 20, 10)
    flat = maps.numpy().reshape(3, -1)
    np.testing.assert_allclose(pool_score(maps, "max").numpy()[:, 0], flat.max(1))
    np.testing.assert_allclose(pool_score(maps, "mean").numpy()[:, 0], flat.mean(1), rtol=1e-5)
    largest = np.sort(flat, axis=1)[:, -20:]
    np.testing.assert_allclose(pool_score(maps, "topk", 0.1).numpy()[:, 0], largest.mean(1), rtol=1e-5)
    np.testing.assert_allclose(pool_score(maps, "topk", 1e-9).numpy()[:, 0], flat.max(1))


def test_predictions_are_within_the_unit_interval_even_at_the_worst():
    class Negative(torch.nn.Module):
        def forward(self, images):
            return 1 - images

    for metric in ("l1", "l2", "ssim", "msgms"):
        model = LampAEModel(width=4, depth=3, map_metric=metric).eval()
        model.network = Negative()
        predictions = model(torch.rand(2, 3, 32, 32).round())
        assert 0 <= predictions.anomaly_map.min() <= predictions.anomaly_map.max() <= 1
        assert predictions.pred_score.shape == (2, 1)
        torch.testing.assert_close(predictions.pred_score[:, 0], predictions.anomaly_map.amax((1, 2, 3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "resnet"}, r"\['autoencoder', 'unet'\], got 'resnet'"),
        ({"width": 0}, "width >= 1"),
        ({"depth": 1}, "depth >= 2"),
        ({"map_metric": "lpips"}, r"map_metric .* got 'lpips'"),
        ({"smoothing": -1}, "smoothing .* got -1"),
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
