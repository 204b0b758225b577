"""The model without Lightning: distances, maps and scores against plain loops."""

import copy

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis as scipy_mahalanobis
from sklearn.metrics import roc_auc_score
from torch import nn

from anomalib_lamp.models.fine_tuned_gaussian import FineTunedGaussianModel
from anomalib_lamp.models.fine_tuned_gaussian.torch_model import squash

LAYERS = ["act1", "layer1"]


def small_model(**arguments):
    return FineTunedGaussianModel(**{"backbone": "resnet18", "layers": LAYERS, "image_size": (32, 40), **arguments})


class TestModel:
    def test_locations_equal_a_loop_over_levels_and_places(self):
        images, unseen = torch.rand(6, 3, 32, 40), torch.rand(2, 3, 32, 40)
        model = small_model(smoothing=0).eval()
        model.fit(images.split(4))
        with torch.no_grad():
            levels, unseen_levels = model.backbone(images), model.backbone(unseen)
            whole = model.location_distance(unseen_levels)
        expected = torch.zeros(2, 1, 32, 40)
        for gaussian, maps, unseen_maps in zip(model.location_gaussians, levels, unseen_levels, strict=True):
            precision = (gaussian.whitening.double().T @ gaussian.whitening.double()).numpy()
            mean = maps.mean(dim=0)
            distance = torch.zeros(2, 1, *maps.shape[2:])
            for n, row, column in np.ndindex(2, *maps.shape[2:]):
                place = (unseen_maps[n, :, row, column], mean[:, row, column])
                distance[n, 0, row, column] = scipy_mahalanobis(*(p.double().numpy() for p in place), precision)
            expected += nn.functional.interpolate(distance, size=(32, 40), mode="bilinear", align_corners=False)
        torch.testing.assert_close(whole, expected, rtol=1e-4, atol=1e-4)

    def test_the_covariance_of_locations_is_that_of_all_of_them_within_sampling(self):
        """Sixteen places of each of many images estimate what all places would."""
        images = torch.rand(200, 3, 32, 40)
        model = small_model()
        model.fit(images.split(50))
        with torch.no_grad():
            maps = torch.cat([model.backbone(chunk)[0] for chunk in images.split(50)]).double()
        whitened = model.location_gaussians[0].whitening.double() @ (maps - maps.mean(dim=0)).movedim(1, 0).flatten(1)
        assert torch.cov(whitened).diagonal().mean() == pytest.approx(1.0, abs=0.05)

    def test_batches_do_not_matter(self):
        images = torch.rand(7, 3, 32, 40)
        whole = small_model().eval()
        parts = copy.deepcopy(whole)
        whole.fit([images])
        parts.fit(images.split(2))
        unseen = torch.rand(2, 3, 32, 40)
        torch.testing.assert_close(whole(unseen).pred_score, parts(unseen).pred_score, rtol=0, atol=1e-4)
        torch.testing.assert_close(whole(unseen).anomaly_map, parts(unseen).anomaly_map, rtol=0, atol=1e-4)

    def test_one_image_and_none(self):
        model = small_model().eval()
        image = torch.rand(1, 3, 32, 40)
        model.fit([image])
        predictions = model(torch.cat([image, torch.rand(1, 3, 32, 40)]))
        assert predictions.pred_score[0] < 1e-5 < predictions.pred_score[1] < 1
        with pytest.raises(ValueError, match="at least one normal image"):
            model.fit([])

    def test_scores_and_maps_lie_in_the_unit_interval_without_saturation(self):
        model = small_model().eval()
        model.fit([torch.rand(12, 3, 32, 40)])
        predictions = model(torch.cat([torch.rand(1, 3, 32, 40), torch.zeros(1, 3, 32, 40), torch.ones(1, 3, 32, 40)]))
        assert predictions.pred_score.shape == (3, 1)
        assert predictions.anomaly_map.shape == (3, 1, 32, 40)
        for values in predictions.pred_score, predictions.anomaly_map:
            assert 0 <= values.min() <= values.max() < 1

    def test_squashing_makes_no_ties(self):
        distances = torch.logspace(-3, 5, 20_000)  # neighbours differ by 0.09 %
        scores = squash(distances, scale=100.0)
        assert (scores.diff() > 0).all()
        labels = np.arange(20_000) % 3 == 0
        assert roc_auc_score(labels, scores) == roc_auc_score(labels, distances)

    def test_covariances_take_a_tenth_of_padims(self):
        """PaDiM on ResNet-18 at 256: a matrix of 100 x 100 at 64 x 64 places."""
        numbers = sum(
            buffer.numel() for name, buffer in FineTunedGaussianModel().named_buffers() if name.endswith("whitening")
        )
        assert numbers <= 0.1 * 64 * 64 * 100**2

    def test_rejects_what_does_not_fit(self):
        with pytest.raises(ValueError, match=r"shape \(N, 3, 32, 40\), got \(1, 3, 40, 32\)"):
            small_model()(torch.rand(1, 3, 40, 32))
        with pytest.raises(ValueError, match=r"smoothing .* got -1"):
            small_model(smoothing=-1)
        with pytest.raises(ValueError, match="at most 512 channels"):
            FineTunedGaussianModel("resnet50", ["layer4"], image_size=(32, 32))
        with pytest.raises(ValueError, match=r"'global_pool' to give maps \(N, C, H, W\), got shape \(1, 512\)"):
            small_model(layers=["global_pool"])
