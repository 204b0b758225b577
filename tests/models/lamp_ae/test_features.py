"""Frozen features, their repair, and how far they are from normal ones."""

import numpy as np
import pytest
import timm
import torch
from skimage.measure import block_reduce
from sklearn.covariance import ledoit_wolf

from anomalib_lamp.models.lamp_ae.feature_branch import FEATURE_ERRORS, FeatureBranch
from anomalib_lamp.models.lamp_ae.feature_repair import FeatureRepair, damage_features, feature_errors
from anomalib_lamp.models.lamp_ae.features import FrozenFeatures, Layout, Levels
from anomalib_lamp.models.lamp_ae.place_gaussian import PlaceGaussian

LITE = "tf_efficientnet_lite0"
LAYOUT = Layout((2, 3, 4), (8, 8), (4, 4))


def levels(count=4):
    return Levels(torch.randn(count, 5, 8, 8), torch.randn(count, 4, 4, 4))


def averaged(image):
    """Return a map whose every value is the mean of its neighbours that exist and itself, by a loop."""
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
            found = frozen.layout.unpacked(frozen(images))
        expected = block_reduce(averaged(stride4[1, 7]), (2, 2), np.mean)
        np.testing.assert_allclose(found.fine[1, 7].numpy(), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.fine[1, 24 + 9].numpy(), averaged(stride8[1, 9]), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.coarse.numpy(), stride16, rtol=1e-4, atol=1e-5)

    def test_are_packed_and_unpacked_without_loss(self):
        before = levels()
        after = LAYOUT.unpacked(before.packed())
        assert before.packed().shape == (4, LAYOUT.length)
        assert torch.equal(before.fine, after.fine)
        assert torch.equal(before.coarse, after.coarse)

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


class TestRepair:
    def test_error_is_half_of_one_minus_the_cosine(self):
        repaired, target = levels(), levels()
        errors = feature_errors(repaired, target, LAYOUT.channels)
        a, b = repaired.fine[2, 2:, 5, 6].numpy(), target.fine[2, 2:, 5, 6].numpy()
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert errors["stride8"][2, 5, 6].item() == pytest.approx((1 - cosine) / 2, rel=1e-5)
        assert {name: tuple(error.shape) for name, error in errors.items()} == {
            "stride4": (4, 8, 8),
            "stride8": (4, 8, 8),
            "stride16": (4, 4, 4),
        }
        assert max(error.max() for error in feature_errors(target, target, LAYOUT.channels).values()) < 1e-6

    def test_damage_changes_regions_and_adds_noise(self):
        clean = Levels(torch.zeros(16, 5, 32, 32), torch.zeros(16, 4, 16, 16))
        clean.fine[:, :, 8:16] = 4.0  # a stripe, so that other places look different
        damaged = damage_features(clean)
        change = (damaged.fine - clean.fine).abs().amax(1)
        assert (change > 0).float().mean() > 0.9
        assert 0.01 < (change > 2.5).float().mean() < 0.5

    def test_learns_to_undo_damage(self):
        torch.manual_seed(0)
        network = FeatureRepair(LAYOUT)
        usual = levels(1).packed()
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)

        def loss():
            target = usual.expand(8, -1)
            repaired = network(damage_features(LAYOUT.unpacked(target)).packed() - usual) + usual
            pair = (LAYOUT.unpacked(packed) for packed in (repaired, target))
            return sum(error.mean() for error in feature_errors(*pair, LAYOUT.channels).values())

        first = loss().item()
        for _ in range(40):
            optimizer.zero_grad()
            last = loss()
            last.backward()
            optimizer.step()
        assert last.item() < 0.3 * first


class TestFeatureBranch:
    def test_standardises_every_channel(self):
        branch = FeatureBranch(LITE, (64, 64)).eval()
        features = branch.features(torch.rand(6, 3, 64, 64))
        branch.fit(features)
        standardised = branch.layout.unpacked(branch.standardised(features))
        for maps in standardised:
            np.testing.assert_allclose(maps.mean((0, 2, 3)).numpy(), 0, atol=1e-3)
            np.testing.assert_allclose(maps.std((0, 2, 3)).numpy(), 1, atol=0.05)
        np.testing.assert_allclose(branch.usual.numpy(), standardised.packed().mean(0).numpy(), atol=1e-3)

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
