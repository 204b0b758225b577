"""Frozen features, their repair, and how far they are from normal ones."""

import numpy as np
import pytest
import timm
import torch
from skimage.measure import block_reduce
from sklearn.covariance import ledoit_wolf

from anomalib_lamp.models.lamp_ae.feature_branch import FEATURE_ERRORS, FeatureBranch
from anomalib_lamp.models.lamp_ae.feature_repair import FeatureRepair, damage_features, feature_error
from anomalib_lamp.models.lamp_ae.features import ChannelScale, FrozenFeatures, averaged
from anomalib_lamp.models.lamp_ae.place_gaussian import PlaceGaussian

LITE = "tf_efficientnet_lite0"


def averaged_by_a_loop(image):
    """Return a map whose every value is the mean of its neighbours that exist and itself."""
    return np.array(
        [
            [image[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].mean() for x in range(image.shape[1])]
            for y in range(image.shape[0])
        ]
    )


class TestFrozenFeatures:
    def test_are_timms_levels_of_strides_4_8_and_16(self):
        frozen = FrozenFeatures(LITE, (64, 96)).eval()
        network = timm.create_model(LITE, pretrained=False, features_only=True, out_indices=(1, 2, 3)).eval()
        network.load_state_dict(frozen.backbone.network.state_dict(), strict=False)
        images = torch.rand(2, 3, 64, 96)
        with torch.no_grad():
            stride4, stride8, stride16 = (maps.numpy() for maps in network((images - 0.5) / 0.5))
            found = frozen(images)
        expected = block_reduce(averaged_by_a_loop(stride4[1, 7]), (2, 2), np.mean)
        np.testing.assert_allclose(found.fine[1, 7].numpy(), expected, rtol=1e-4, atol=1e-5)
        expected = averaged_by_a_loop(stride8[1, 9])
        np.testing.assert_allclose(found.fine[1, 24 + 9].numpy(), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.coarse.numpy(), stride16, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("resnet", (64, 64)), "name of a timm network, got 'resnet'"),
            (("vit_tiny_patch16_224", (64, 64)), "levels at strides 4, 8, 16, got 'vit_tiny_patch16_224'"),
            ((LITE, (32, 64)), r"at least 64 pixels a side for features, got \(32, 64\)"),
        ],
    )
    def test_rejects_networks_and_sizes_that_give_none(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            FrozenFeatures(*arguments)

    def test_rejects_images_of_another_size(self):
        with pytest.raises(ValueError, match=r"images of 64 x 64 pixels, .* got \(64, 72\)"):
            FrozenFeatures(LITE, (64, 64))(torch.rand(1, 3, 64, 72))


def test_means_over_a_neighbourhood_leave_out_what_does_not_exist():
    maps = torch.rand(1, 2, 5, 7)
    np.testing.assert_allclose(averaged(maps, 3)[0, 1].numpy(), averaged_by_a_loop(maps[0, 1].numpy()), rtol=1e-5)


class TestPlaceGaussian:
    def test_distance_is_that_of_the_shared_covariance_less_the_directions_of_a_place(self):
        torch.manual_seed(0)
        normal = torch.randn(30, 6, 3, 4) * torch.linspace(0.5, 2, 6)[:, None, None]
        normal[:, 0, 1, 2] *= 5  # varies more at this place than elsewhere
        gaussian = PlaceGaussian(rank=2)
        gaussian.fit(normal)
        sample = torch.randn(1, 6, 3, 4) * 3
        found = gaussian(sample)[0].numpy()

        mean = normal.numpy().mean(0)
        deviations = (normal.numpy() - mean).astype(float)
        covariance, _ = ledoit_wolf(deviations.transpose(0, 2, 3, 1).reshape(-1, 6), assume_centered=True)
        values, vectors = np.linalg.eigh(covariance)
        whitening = vectors / np.sqrt(values) @ vectors.T
        for y in range(3):
            for x in range(4):
                z = deviations[:, :, y, x] @ whitening
                own_values, own_vectors = np.linalg.eigh(z.T @ z / 29)
                new = whitening @ (sample[0, :, y, x].numpy() - mean[:, y, x])
                squared = new @ new
                for value, vector in zip(own_values[-2:], own_vectors.T[-2:], strict=True):
                    squared -= (1 - 1 / max(value, 1)) * (vector @ new) ** 2
                distance = np.sqrt(squared / 6)
                assert found[y, x] == pytest.approx(distance / (distance + 1), rel=1e-3)

    def test_one_image_gives_finite_distances(self):
        gaussian = PlaceGaussian()
        gaussian.fit(torch.randn(1, 6, 4, 4))
        assert gaussian(torch.randn(2, 6, 4, 4)).isfinite().all()

    def test_rejects_features_of_another_size(self):
        gaussian = PlaceGaussian()
        gaussian.fit(torch.randn(5, 6, 4, 4))
        with pytest.raises(ValueError, match=r"shape \(6, 4, 4\), as in training, got \(6, 5, 5\)"):
            gaussian(torch.randn(1, 6, 5, 5))


class TestChannelScale:
    def test_standardises_every_channel(self):
        features = (
            torch.randn(70, 6, 4, 5) * torch.linspace(0.1, 9, 6)[:, None, None] + torch.arange(6.0)[:, None, None]
        )
        scale = ChannelScale(6)
        scale.fit(features)
        expected = (features - features.mean((0, 2, 3), keepdim=True)) / features.std((0, 2, 3), keepdim=True)
        np.testing.assert_allclose(scale(features).numpy(), expected.numpy(), rtol=1e-3, atol=1e-3)

    def test_a_channel_of_one_value_stays_finite(self):
        scale = ChannelScale(2)
        scale.fit(torch.ones(3, 2, 4, 4).half())
        assert scale(torch.ones(1, 2, 4, 4)).abs().max() == 0


class TestRepair:
    def test_error_is_half_of_one_minus_the_cosine(self):
        repaired, target = torch.randn(4, 5, 8, 8), torch.randn(4, 5, 8, 8)
        errors = feature_error(repaired, target)
        a, b = repaired[2, :, 5, 6].numpy(), target[2, :, 5, 6].numpy()
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert errors.shape == (4, 8, 8)
        assert errors[2, 5, 6].item() == pytest.approx((1 - cosine) / 2, rel=1e-5)
        assert feature_error(target, target).max() < 1e-6

    def test_damage_changes_regions_and_adds_noise(self):
        torch.manual_seed(0)
        clean = torch.zeros(32, 5, 16, 16)
        clean[:, :, 4:8] = 4.0  # a stripe, so that other places look different
        change = (damage_features(clean) - clean).abs().amax(1)
        assert (change > 0).float().mean() > 0.9
        assert 0.01 < (change > 2.5).float().mean() < 0.5

    def test_learns_to_undo_damage(self):
        torch.manual_seed(0)
        network = FeatureRepair(5, (8, 8))
        usual = torch.randn(1, 5, 8, 8)
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)

        def loss():
            target = usual.expand(8, -1, -1, -1)
            return feature_error(network(damage_features(target) - usual) + usual, target).mean()

        first = loss().item()
        for _ in range(40):
            optimizer.zero_grad()
            last = loss()
            last.backward()
            optimizer.step()
        assert last.item() < 0.3 * first


class TestFeatureBranch:
    def test_repair_starts_from_the_usual_features_of_a_place(self):
        branch = FeatureBranch(LITE, (64, 64)).eval()
        images = torch.rand(6, 3, 64, 64)
        branch.fit(branch.features(images))
        standardised = branch.standardised(branch.features(images)).coarse
        np.testing.assert_allclose(branch.usual.numpy(), standardised.mean(0).numpy(), atol=1e-3)
        with torch.no_grad():
            expected = feature_error(branch.repair(standardised - branch.usual) + branch.usual, standardised)
            np.testing.assert_allclose(branch.errors(images)["repair"].numpy(), expected.numpy(), atol=1e-5)

    def test_a_strange_region_has_the_largest_distance(self):
        branch = FeatureBranch(LITE, (128, 128)).eval()
        torch.manual_seed(0)
        normal = 0.5 + 0.1 * torch.rand(12, 3, 128, 128)
        branch.fit(branch.features(normal))
        strange = normal[:1].clone()
        strange[..., 32:64, 64:96] = torch.rand(3, 32, 32)
        errors = branch.errors(strange)
        assert set(errors) == set(FEATURE_ERRORS)
        row, column = divmod(errors["distance"][0].argmax().item(), 16)
        assert 3 <= row <= 8
        assert 7 <= column <= 12
