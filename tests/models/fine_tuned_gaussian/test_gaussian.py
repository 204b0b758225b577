"""The Gaussian against SciPy and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis as scipy_mahalanobis
from sklearn.covariance import LedoitWolf

from anomalib_lamp.functional import mahalanobis
from anomalib_lamp.models.fine_tuned_gaussian import FineTunedGaussianModel
from anomalib_lamp.models.fine_tuned_gaussian.gaussian import Gaussian


def correlated(count, channels):
    return torch.randn(count, channels) @ torch.randn(channels, channels) + torch.arange(channels)


def fitted(samples):
    gaussian = Gaussian(samples.shape[1])
    gaussian.fit(samples.mean(dim=0), samples - samples.mean(dim=0))
    return gaussian


class TestGaussian:
    @pytest.mark.parametrize(("count", "channels"), [(200, 7), (30, 30), (12, 40)])
    def test_equals_scipy_and_scikit_learn(self, count, channels):
        samples, unseen = correlated(count, channels), correlated(5, channels)
        reference = LedoitWolf().fit(samples.double().numpy())
        precision = np.linalg.inv(reference.covariance_)
        expected = [scipy_mahalanobis(x, reference.location_, precision) for x in unseen.double().numpy()]
        gaussian = fitted(samples)
        np.testing.assert_allclose(gaussian(unseen).numpy(), expected, rtol=1e-5)
        np.testing.assert_allclose(
            np.linalg.inv((gaussian.whitening.double().T @ gaussian.whitening.double()).numpy()),
            reference.covariance_,
            atol=1e-5 * np.abs(reference.covariance_).max(),
        )

    def test_every_level_of_a_network_equals_scikit_learn(self):
        images, unseen = torch.rand(10, 3, 64, 64), torch.rand(3, 3, 64, 64)
        model = FineTunedGaussianModel("resnet18", image_size=(64, 64)).eval()
        model.fit(images.split(4))
        with torch.no_grad():
            levels, unseen_levels = model.backbone(images), model.backbone(unseen)
            total = model.distance(unseen_levels)
        expected = np.zeros(3)
        for gaussian, maps, unseen_maps in zip(model.gaussians, levels, unseen_levels, strict=True):
            features, unseen_features = (m.double().mean(dim=(2, 3)).numpy() for m in (maps, unseen_maps))
            reference = np.sqrt(LedoitWolf().fit(features).mahalanobis(unseen_features))
            np.testing.assert_allclose(gaussian(unseen_maps.mean(dim=(2, 3))).numpy(), reference, rtol=1e-5)
            expected += reference
        np.testing.assert_allclose(total.numpy(), expected, rtol=1e-5)

    def test_one_sample_gives_euclidean_distances(self):
        sample, other = torch.tensor([[1.0, 2.0, 2.0]]), torch.tensor([[1.0, 5.0, 6.0]])
        torch.testing.assert_close(fitted(sample)(other), torch.tensor([5.0]))

    def test_equal_samples_give_euclidean_distances(self):
        """Also where the mean of equal numbers is not quite equal to them."""
        samples = torch.tensor([[0.1, 1000.3, 0.7]]).repeat(7, 1)
        distance = fitted(samples)(samples[:1] + torch.tensor([[3.0, 4.0, 0.0]]))
        torch.testing.assert_close(distance, torch.tensor([5.0]), rtol=1e-4, atol=0)  # 1004.3 - 1000.3 in float32

    def test_two_samples_give_finite_distances_that_weigh_the_direction_between_them_least(self):
        samples = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
        along, across = fitted(samples)(torch.eye(3))[1], fitted(samples)(torch.eye(3))[0]
        assert torch.isfinite(across)
        assert 0 < along < across

    def test_constant_channels_give_finite_distances_as_scikit_learn(self):
        samples = correlated(20, 6)
        samples[:, 2] = 4.0
        expected = np.sqrt(LedoitWolf().fit(samples.double().numpy()).mahalanobis(samples.double().numpy()))
        np.testing.assert_allclose(fitted(samples)(samples).numpy(), expected, rtol=1e-5)

    @pytest.mark.parametrize("bad", [torch.nan, torch.inf])
    def test_rejects_features_that_are_not_finite(self, bad):
        with pytest.raises(ValueError, match="finite features"):
            fitted(torch.tensor([[1.0, 2.0], [bad, 3.0]]))

    def test_distance_at_the_mean_is_zero_and_has_a_gradient(self):
        mean = torch.tensor([1.0, 2.0]).requires_grad_()
        distance = mahalanobis(mean, mean.detach(), torch.eye(2))
        distance.backward()
        assert distance == 0
        assert torch.equal(mean.grad, torch.zeros(2))

    def test_gradient_of_the_distance(self):
        x, mean, whitening = (torch.randn(*shape, dtype=torch.float64) for shape in ((4, 3), (3,), (3, 3)))
        assert torch.autograd.gradcheck(mahalanobis, (x.requires_grad_(), mean, whitening))
