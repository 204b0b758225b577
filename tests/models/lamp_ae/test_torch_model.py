"""LampAE without Lightning: predictions, state, errors for bad input."""

import pytest
import torch

from anomalib_lamp.models.lamp_ae import LampAEModel
from anomalib_lamp.models.lamp_ae.choose_calibration import calibrate


def test_calibration_and_statistics_are_part_of_the_state():
    model = LampAEModel(width=4, depth=3).eval()
    images = torch.rand(4, 3, 32, 32)
    calibrate(model, images, calibrations=["location"])
    other = LampAEModel(width=4, depth=3).eval()
    other.load_state_dict(model.state_dict())
    assert other.map_and_score.calibration == "location"
    torch.testing.assert_close(other(images).anomaly_map, model(images).anomaly_map)
    torch.testing.assert_close(other(images).pred_score, model(images).pred_score)


def test_predictions_are_within_the_unit_interval_even_at_the_worst():
    class Negative(torch.nn.Module):
        def forward(self, images):
            return 1 - images

    for metric in ("l1", "l2", "ssim", "msgms"):
        model = LampAEModel(width=4, depth=3, map_metric=metric, sharp_maps={}).eval()
        model.network = Negative()
        predictions = model(torch.rand(2, 3, 32, 32).round())
        assert 0 < predictions.anomaly_map.min() <= predictions.anomaly_map.max() < 1
        assert predictions.pred_score.shape == (2, 1)
        assert 0 < predictions.pred_score.min() <= predictions.pred_score.max() < 1
        assert torch.equal(predictions.pred_score[:, 0], predictions.anomaly_map.amax((1, 2, 3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": "edges"}, "'pixels', 'features' or 'pixels\\+features', got 'edges'"),
        ({"targets": "pixels+pixels"}, "got 'pixels\\+pixels'"),
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
