"""The Gaussians, the backbone with its weights, the augmentations and the stopping rule, without Lightning."""

import copy

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from scipy.spatial.distance import mahalanobis as scipy_mahalanobis
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from torch import nn

from anomalib_lamp.functional import mahalanobis
from anomalib_lamp.models.fine_tuned_gaussian import FineTunedGaussianModel, backbone
from anomalib_lamp.models.fine_tuned_gaussian.augmentation import AUGMENTATIONS, cutout
from anomalib_lamp.models.fine_tuned_gaussian.backbone import Backbone
from anomalib_lamp.models.fine_tuned_gaussian.fine_tuning import FineTuning, StoppingRule, separation
from anomalib_lamp.models.fine_tuned_gaussian.gaussian import Gaussian
from anomalib_lamp.models.fine_tuned_gaussian.torch_model import squash

LAYERS = ["act1", "layer1"]


def small_model(**arguments):
    return FineTunedGaussianModel(**{"backbone": "resnet18", "layers": LAYERS, "image_size": (32, 40), **arguments})


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


class TestBackbone:
    def test_levels_of_efficientnet_are_stem_stages_and_head(self):
        levels = Backbone("efficientnet_b0")(torch.rand(1, 3, 32, 32))
        assert [maps.shape[1] for maps in levels] == [32, 16, 24, 40, 80, 112, 192, 320, 1280]

    def test_levels_of_other_networks_are_timms(self):
        assert Backbone("resnet18").layers == ["act1", "layer1", "layer2", "layer3", "layer4"]

    def test_features_are_timms_of_the_normalised_image(self):
        network = timm.create_model("resnet18", features_only=True, out_indices=[2]).eval()
        ours = Backbone("resnet18", ["layer2"])
        ours.network.load_state_dict(network.state_dict(), strict=False)
        image = torch.rand(1, 3, 64, 64)
        mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        torch.testing.assert_close(ours(image)[0], network((image - mean) / deviation)[0])

    @pytest.mark.parametrize("copied", [False, True])
    def test_batch_norm_never_learns_its_statistics(self, copied):
        ours = Backbone("resnet18", LAYERS)
        ours = copy.deepcopy(ours).train() if copied else ours.train()
        before = copy.deepcopy(ours.state_dict())
        ours(torch.rand(4, 3, 32, 32))
        assert not any(module.training for module in ours.modules())
        assert all(torch.equal(before[key], value) for key, value in ours.state_dict().items())

    def test_half_precision_does_not_reach_the_features(self):
        ours, images = Backbone("resnet18", LAYERS), torch.rand(1, 3, 32, 32)
        with torch.autocast("cpu", torch.bfloat16):
            levels = ours(images)
        assert all(torch.equal(a, b) for a, b in zip(levels, ours(images), strict=True))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("resnet17",), r"name of a timm network, got 'resnet17'. See timm.list_models"),
            (("resnet18", ["layer9"]), r"layers of 'resnet18' among \['conv1', .*'layer4.*got \['layer9'\]"),
        ],
    )
    def test_rejects_unknown_names(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            Backbone(*arguments)


@pytest.fixture(scope="module")
def donor():
    """Weights of a network, as a file of weights_path holds them."""
    torch.manual_seed(7)
    return timm.create_model("resnet18").state_dict()


class TestWeights:
    @pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "wrapped.pth"])
    def test_loads_a_file(self, donor, tmp_path, name):
        path = tmp_path / name
        if name.endswith("safetensors"):
            save_file(donor, path)
        else:
            torch.save({"state_dict": donor} if "wrapped" in name else donor, path)
        ours = Backbone("resnet18")
        ours.load_weights(path)
        assert all(torch.equal(value, donor[key]) for key, value in ours.network.state_dict().items())

    def test_old_files_without_counters_of_batches_load(self, donor, tmp_path):
        torch.save({k: v for k, v in donor.items() if not k.endswith("num_batches_tracked")}, tmp_path / "old.pth")
        Backbone("resnet18").load_weights(tmp_path / "old.pth")

    def test_names_file_keys_and_remedy_if_the_network_is_another(self, donor, tmp_path):
        path = tmp_path / "weights.safetensors"
        save_file(donor, path)
        ours = Backbone("efficientnet_b0", ["blocks.0"])
        with pytest.raises(ValueError, match="does not hold weights of 'efficientnet_b0'") as error:
            ours.load_weights(path)
        for part in (str(path), "conv_stem.weight (32, 3, 3, 3)", "the file begins with", "(backbone)"):
            assert part in str(error.value)

    def test_a_shape_that_differs_is_a_mismatch(self, donor, tmp_path):
        save_file({**donor, "conv1.weight": torch.zeros(64, 1, 7, 7)}, tmp_path / "grey.safetensors")
        with pytest.raises(ValueError, match=r"1 of \d+ tensors .* Expected conv1.weight \(64, 3, 7, 7\)"):
            Backbone("resnet18").load_weights(tmp_path / "grey.safetensors")

    @pytest.mark.parametrize("name", ["notes.pth", "notes.safetensors"])
    def test_a_file_of_something_else_is_rejected(self, tmp_path, name):
        (tmp_path / name).write_text("not weights")
        with pytest.raises(ValueError, match=rf"{name} to hold a state dictionary"):
            Backbone("resnet18", LAYERS).load_weights(tmp_path / name)

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no file .*absent\.pth, given as weights_path"):
            Backbone("resnet18", LAYERS).load_weights(tmp_path / "absent.pth")

    def test_an_unreachable_hub_is_asked_once_and_names_both_ways_out(self, monkeypatch):
        class NoNetwork:
            def head(self, *_, **__):
                msg = "[Errno -2] Name or service not known"
                raise OSError(msg)

        ours = Backbone("resnet18", LAYERS)
        monkeypatch.setattr(backbone, "try_to_load_from_cache", lambda *_: None)
        monkeypatch.setattr(backbone, "get_session", NoNetwork)
        monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("timm would retry"))
        with pytest.raises(ConnectionError, match=r"could not be downloaded .*Name or service not known") as error:
            ours.load_weights()
        assert "weights_path" in str(error.value)
        assert "pre_trained=False" in str(error.value)
        assert error.value.__suppress_context__

    def test_the_hubs_weights_are_taken(self, donor, monkeypatch):
        network = timm.create_model("resnet18", num_classes=0)
        network.load_state_dict(donor, strict=False)
        ours = Backbone("resnet18", LAYERS)
        monkeypatch.setattr(backbone, "try_to_load_from_cache", lambda *_: "model.safetensors")
        monkeypatch.setattr(timm, "create_model", lambda *_, pretrained, **__: network if pretrained else None)
        ours.load_weights()
        assert torch.equal(ours.network.conv1.weight, donor["conv1.weight"])


class TestAugmentations:
    @pytest.mark.parametrize("augmentation", AUGMENTATIONS.values(), ids=AUGMENTATIONS.keys())
    def test_changes_every_image_within_the_unit_interval(self, augmentation):
        images = torch.rand(4, 3, 48, 64)
        torch.manual_seed(1)
        augmented = augmentation(images)
        torch.manual_seed(1)
        assert torch.equal(augmented, augmentation(images))
        assert augmented.shape == images.shape
        assert 0 <= augmented.min() <= augmented.max() <= 1
        assert (augmented - images).abs().flatten(1).amax(dim=1).min() > 0.05

    def test_cutout_is_a_rectangle_of_the_mean_colour(self):
        images = torch.rand(1, 3, 100, 100)
        changed = (cutout(images) != images).any(dim=1)[0]
        rows, columns = changed.any(dim=1).sum(), changed.any(dim=0).sum()
        assert changed.sum() == rows * columns > 0
        torch.testing.assert_close(cutout(images).amin(), images.amin())


class TestFineTuning:
    def test_separation_equals_the_counted_auroc_of_normal_samples(self):
        near, far = torch.randn(5000).exp(), (torch.randn(5000) * 2 + 1).exp()
        labels = torch.arange(10_000) >= 5000
        assert separation(near, far) == pytest.approx(roc_auc_score(labels, torch.cat([near, far])), abs=0.01)
        assert separation(near, 1e6 * far) > separation(near, 1e5 * far) > 0.999
        assert separation(100 * near, 100 * far) == pytest.approx(separation(near, far))

    def test_separation_of_degenerate_distances_is_defined(self):
        one, two = torch.tensor([1.0]), torch.tensor([2.0])
        assert (separation(one, two), separation(two, one), separation(one, one)) == (1.0, 0.0, 0.5)
        assert separation(torch.zeros(3), torch.zeros(3)) == 0.5

    def test_stopping_rule(self):
        rule = StoppingRule(patience=3)
        values = [0.6, 0.7, 0.65, 0.7, 0.71, 0.7, 0.7, 0.7]
        assert [rule.is_best(value) for value in values] == [True, True, False, False, True, False, False, False]
        assert rule.stop
        assert rule.best == 0.71

    def test_not_a_number_is_never_the_best(self):
        rule = StoppingRule(patience=1)
        assert not rule.is_best(float("nan"))
        assert rule.stop

    def learn(self, fine_tuning, images, rate=1e-4):
        optimizer = torch.optim.Adam(fine_tuning.learner.parameters(), lr=rate)
        loss = fine_tuning.distance(images).mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    def test_the_backbone_learns_and_the_gaussians_stay(self):
        model, images = small_model(), torch.rand(8, 3, 32, 40)
        model.fit([images])
        gaussians = copy.deepcopy(model.gaussians.state_dict())
        fine_tuning = FineTuning(model)
        first, _ = (self.learn(fine_tuning, images) for _ in range(2))  # residual branches start at zero
        assert all(parameter.grad.abs().sum() > 0 for parameter in fine_tuning.learner.parameters())
        assert fine_tuning.distance(images).mean() < first
        assert all(
            torch.equal(a, b) for a, b in zip(fine_tuning.learner.buffers(), model.backbone.buffers(), strict=True)
        )
        assert all(torch.equal(value, gaussians[key]) for key, value in model.gaussians.state_dict().items())

    def test_the_model_takes_over_the_best_weights_only(self, monkeypatch):
        model, images = small_model(), torch.rand(8, 3, 32, 40)
        model.fit([images[:4]])
        fine_tuning = FineTuning(model, patience=1)
        fine_tuning.begin(images[4:], ["cutout", "confetti"])
        results = iter([0.6, 0.6, 0.7, 0.7, 0.65, 0.65])
        monkeypatch.setattr(f"{FineTuning.__module__}.separation", lambda *_: next(results))
        taken = []
        for _ in range(3):
            self.learn(fine_tuning, images[:4])
            taken.append(fine_tuning.check())
            learnt = fine_tuning.learner.network.conv1.weight
            assert torch.equal(model.backbone.network.conv1.weight, learnt) == taken[-1]
        assert taken == [True, True, False]
        assert fine_tuning.rule.stop
        assert fine_tuning.separation == pytest.approx(0.65)

    def test_every_check_sees_the_same_augmented_images(self):
        model, images = small_model(), torch.rand(8, 3, 32, 40)
        model.fit([images[:4]])
        fine_tuning = FineTuning(model)
        fine_tuning.begin(images[4:], list(AUGMENTATIONS))
        fine_tuning.check()
        first = fine_tuning.separation
        fine_tuning.check()
        assert fine_tuning.separation == first
