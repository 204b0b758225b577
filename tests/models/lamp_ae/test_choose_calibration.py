"""The calibration is chosen by held-out images and damaged copies of them, the same every time."""

import copy

import pytest
import torch
from sklearn.metrics import roc_auc_score

from anomalib_lamp.models.lamp_ae import LampAEModel, choose_calibration
from anomalib_lamp.models.lamp_ae.choose_calibration import Choice, calibrate, damaged_copies


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


def quality_by_a_loop(model, map_and_score, images):
    """Each half is judged with the other half's statistics; scikit-learn's AUROC of pixels and of images."""
    damaged = damaged_copies(images)
    masks = (damaged - images).abs().mean(1) > 0.03
    pixels, truth, scores, labels = [], [], [], []
    for first in (0, 1):
        with torch.no_grad():
            map_and_score.calibrate(model.errors(images[1 - first :: 2]))
            anomaly_maps, damaged_scores = map_and_score(model.errors(damaged[first::2]))
            _, normal_scores = map_and_score(model.errors(images[first::2]))
        pixels.append(anomaly_maps[:, 0, ::2, ::2].flatten())
        truth.append(masks[first::2, ::2, ::2].flatten())
        scores += [*damaged_scores.flatten().tolist(), *normal_scores.flatten().tolist()]
        labels += [*masks[first::2].flatten(1).any(1).tolist(), *[False] * len(normal_scores)]
    return (roc_auc_score(torch.cat(truth), torch.cat(pixels)) + roc_auc_score(labels, scores)) / 2


def test_calibration_is_chosen_where_normal_errors_keep_their_place(model_with_a_weak_place):
    images = grey_images()
    choice = calibrate(model_with_a_weak_place, images)
    assert choice.calibration == "location"
    assert model_with_a_weak_place.map_and_score.calibration == "location"
    qualities = {}
    for name in ("none", "location"):
        map_and_score = copy.deepcopy(model_with_a_weak_place.map_and_score)
        map_and_score.calibration = name
        qualities[name] = quality_by_a_loop(model_with_a_weak_place, map_and_score, images)
    assert qualities["none"] + 0.05 < qualities["location"] == pytest.approx(choice.quality)


@pytest.mark.parametrize(("uncalibrated", "chosen"), [(0.95, "none"), (0.91, "location"), (0.85, "location")])
def test_a_plain_map_has_to_be_better_by_the_bonus(model_with_a_weak_place, monkeypatch, uncalibrated, chosen):
    qualities = {"none": uncalibrated, "location": 0.9}
    monkeypatch.setattr(choose_calibration, "quality", lambda _, __, calibration: qualities[calibration])
    assert calibrate(model_with_a_weak_place, grey_images()).calibration == chosen
    assert model_with_a_weak_place.map_and_score.calibration == chosen


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
    assert calibrate(model_with_a_weak_place, grey_images(4), ["none"]) == Choice("none", None)
