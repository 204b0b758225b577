"""The calibration is chosen by held-out images and damaged copies of them, the same every time."""

import copy

import pytest
import torch
from sklearn.metrics import roc_auc_score

from anomalib_lamp.models.lamp_ae import LampAEModel, choose_calibration
from anomalib_lamp.models.lamp_ae.choose_calibration import Choice, calibrate, weights_of
from anomalib_lamp.models.lamp_ae.probes import PROBES, probes


class Repairs(torch.nn.Module):
    """Returns grey whatever comes, but is wrong at the same place of every image."""

    def forward(self, images):
        repaired = torch.full_like(images, 0.5)
        repaired[..., 4:12, 4:12] = 0.9
        return repaired


@pytest.fixture
def model_with_a_weak_place():
    model = LampAEModel(width=4, depth=3, smoothing=1.0, sharp_maps={}).eval()
    model.network = Repairs()
    return model


def grey_images(count=8):
    return 0.5 + 0.01 * torch.randn(count, 3, 64, 64)


def quality_by_a_loop(model, map_and_score, images):
    """Each half is judged with the other half's statistics; scikit-learn's AUROC of pixels and of images."""
    pixels, truth, scores, labels = [], [], [], []
    for first in (0, 1):
        with torch.no_grad():
            map_and_score.calibrate(model.errors(images[1 - first :: 2]))
            scores += map_and_score(model.errors(images[first::2]))[1].flatten().tolist()
            labels += [False] * len(images[first::2])
            for damaged in probes(images[first::2]):
                mask = (damaged - images[first::2]).abs().mean(1) > 0.015
                anomaly_maps, damaged_scores = map_and_score(model.errors(damaged))
                pixels.append(anomaly_maps[:, 0, ::2, ::2].flatten())
                truth.append(mask[:, ::2, ::2].flatten())
                scores += damaged_scores.flatten().tolist()
                labels += mask.flatten(1).any(1).tolist()
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
    judge = lambda _, __, calibration: Choice(calibration, qualities[calibration], [1.0], ["ssim"])  # noqa: E731
    monkeypatch.setattr(choose_calibration, "judge", judge)
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


def test_evidence_that_tells_damaged_images_gets_the_weight():
    model = LampAEModel(width=4, depth=3, map_metric="l1", sharp_maps={"chroma": 1.0}).eval()
    model.network = Repairs()
    images = grey_images(16)
    images += 0.2 * torch.rand(16, 3, 1, 1)  # the colour of whole images says nothing
    choice = calibrate(model, images)
    assert choice.names == ["l1", "chroma"]
    assert model.map_and_score.weights.tolist() == pytest.approx(choice.weights)
    assert sum(choice.weights) == pytest.approx(1)


def test_weights_are_the_prior_times_what_exceeds_chance():
    equal = torch.full((4,), 0.25)
    assert weights_of([0.9, 0.7, 0.3, None], equal).tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0])
    assert weights_of([0.9, 0.7], torch.tensor([0.2, 0.8])).tolist() == pytest.approx([1 / 3, 2 / 3])
    assert weights_of([0.5, 0.2], torch.tensor([0.2, 0.8])).tolist() == pytest.approx([0.2, 0.8])


@pytest.mark.parametrize("kind", PROBES)
def test_every_kind_of_probe_changes_regions_of_many_images(kind):
    images = torch.nn.functional.interpolate(torch.rand(16, 3, 32, 32), size=(64, 64))
    (damaged,) = probes(images, [kind])
    changed = (damaged - images).abs().amax(1) > 0.02
    share = changed.flatten(1).float().mean(1)
    assert (share > 0).float().mean() > 0.3  # small regions often fall between the hills of the noise
    assert share.max() < 0.5
    assert 0 <= damaged.min() <= damaged.max() <= 1
