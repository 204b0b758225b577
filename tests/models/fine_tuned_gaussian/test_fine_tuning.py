"""The separation, the stopping rule, and which weights the model takes over."""

import copy

import pytest
import torch
from sklearn.metrics import roc_auc_score

from anomalib_lamp.callbacks import HeldOutImages
from anomalib_lamp.models.fine_tuned_gaussian import FineTunedGaussianModel
from anomalib_lamp.models.fine_tuned_gaussian.augmentation import AUGMENTATIONS
from anomalib_lamp.models.fine_tuned_gaussian.fine_tuning import FineTuning, StoppingRule, separation

LAYERS = ["act1", "layer1"]


def small_model(**arguments):
    return FineTunedGaussianModel(**{"backbone": "resnet18", "layers": LAYERS, "image_size": (32, 40), **arguments})


def fine_tune(model, augmentations=tuple(AUGMENTATIONS), **arguments):
    fine_tuning = FineTuning(model, HeldOutImages(0.5, 2, 32), augmentations, **arguments)
    fine_tuning.new_learner()
    return fine_tuning


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
        fine_tuning = fine_tune(model)
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
        fine_tuning = fine_tune(model, ["cutout", "confetti"], patience=1)
        fine_tuning.begin(images[4:])
        results = iter([0.6, 0.6, 0.7, 0.7, 0.65, 0.65])
        monkeypatch.setattr(f"{FineTuning.__module__}.separation", lambda *_: next(results))
        taken = []
        for step in range(3):
            self.learn(fine_tuning, images[:4])
            taken.append(fine_tuning.check(step))
            learnt = fine_tuning.learner.network.conv1.weight
            assert torch.equal(model.backbone.network.conv1.weight, learnt) == taken[-1]
        assert taken == [True, True, False]
        assert fine_tuning.rule.stop
        assert fine_tuning.separation == pytest.approx(0.65)

    def test_every_check_sees_the_same_augmented_images(self):
        model, images = small_model(), torch.rand(8, 3, 32, 40)
        model.fit([images[:4]])
        fine_tuning = fine_tune(model)
        fine_tuning.begin(images[4:])
        fine_tuning.check(step=0)
        first = fine_tuning.separation
        fine_tuning.check(step=1)
        assert fine_tuning.separation == first
