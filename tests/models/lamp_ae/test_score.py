"""The map and the score of LampAE, made from several kinds of evidence."""

import numpy as np
import pytest
import torch
from skimage.transform import resize

from anomalib_lamp.functional import errors_by_metric
from anomalib_lamp.models.lamp_ae.anomaly_map import AnomalyMapGenerator
from anomalib_lamp.models.lamp_ae.score import MapAndScore, pool_score, weigh_border

EVIDENCE = [("l1", 2.5), ("ssim", 1.0)]


def errors_of(count):
    return {name: torch.rand(count, 32, 40) * torch.rand(count, 1, 1) for name in ("l1", "ssim")}


def log_odds(normal, errors, calibration):
    """The logarithm of the odds of maps that are made and calibrated one by one, (maps, images, H, W)."""
    odds = []
    for metric, sigma in EVIDENCE:
        maps = AnomalyMapGenerator(metric, sigma, calibration)
        maps.calibrate(normal)
        values = weigh_border(maps.map_of(errors), maps.normal_level).numpy()[:, 0].astype(float)
        odds.append(np.log(values) - np.log1p(-values))
    return np.array(odds)


def unit(z):
    return 0.5 * (1 + z / (np.abs(z) + 4))


@pytest.mark.parametrize("calibration", ["none", "location"])
@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.9, 0.1]])
def test_the_map_is_the_weighted_mean_of_standardised_log_odds_and_the_score_its_peak(calibration, weights):
    normal, errors = errors_of(12), errors_of(5)
    map_and_score = MapAndScore(EVIDENCE, calibration)
    map_and_score.calibrate(normal)
    map_and_score.weights.copy_(torch.tensor(weights))
    usual = log_odds(normal, normal, calibration).max((2, 3))
    mean, deviation = (each[:, None, None, None] for each in (usual.mean(1), usual.std(1, ddof=1)))
    z = np.average((log_odds(normal, errors, calibration) - mean) / deviation, axis=0, weights=weights)
    anomaly_map, scores = map_and_score(errors)
    np.testing.assert_allclose(anomaly_map[:, 0].numpy(), unit(z), atol=1e-4)
    np.testing.assert_allclose(scores[:, 0].numpy(), unit(z.max((1, 2))), atol=1e-4)


def test_pixels_and_distance_count_twice_as_much_as_repaired_features_before_anything_is_known():
    weights = MapAndScore([(name, 1.0) for name in ("ssim", "l1", "repair", "distance")]).weights.tolist()
    assert weights == pytest.approx([0.2, 0.2, 0.2, 0.4])
    assert MapAndScore([("ssim", 1.0), ("l1", 1.0)]).weights.tolist() == pytest.approx([0.5, 0.5])


def test_coarser_evidence_is_enlarged():
    errors = {"l1": torch.full((1, 32, 32), 0.5), "distance": 0.2 + 0.6 * torch.rand(1, 8, 8)}
    map_and_score = MapAndScore([("l1", 0.0), ("distance", 0.0)])
    coarse = weigh_border(errors["distance"][:, None], torch.zeros(()))[0, 0].numpy()
    enlarged = resize(np.log(coarse / (1 - coarse)), (32, 32), order=1, mode="edge", anti_aliasing=False)
    fine = weigh_border(errors["l1"][:, None], torch.zeros(()))[0, 0].numpy()
    expected = unit((np.log(fine / (1 - fine)) + enlarged) / 2)
    np.testing.assert_allclose(map_and_score(errors)[0][0, 0].numpy(), expected, atol=1e-5)


def test_peaks_of_fewer_than_four_images_are_not_standardised():
    normal, errors = errors_of(3), errors_of(5)
    map_and_score = MapAndScore(EVIDENCE, "location")
    map_and_score.calibrate(errors_of(12))
    map_and_score.calibrate(normal)
    z = log_odds(normal, errors, "location").mean(0)
    np.testing.assert_allclose(map_and_score(errors)[0][:, 0].numpy(), unit(z), atol=1e-4)


def test_peaks_that_are_all_alike_give_finite_scores():
    map_and_score = MapAndScore([("l1", 0.0)])
    map_and_score.calibrate({"l1": torch.full((8, 32, 32), 0.1)})
    errors = torch.tensor([0.0, 0.1, 0.11, 1.0])[:, None, None].expand(-1, 32, 32)
    values = map_and_score({"l1": errors})[1][:, 0]
    assert (values.diff() > 0).all()
    assert 0 < values[0] < values[1] == 0.5 < values[3] < 1


def test_a_stain_of_the_same_structure_is_seen_by_its_colour():
    normal = torch.rand(12, 3, 64, 64)
    noise = 0.1 * torch.randn(12, 1, 64, 64) + 0.01 * torch.randn(normal.shape)  # in brightness more than in colour
    reconstruction = (normal + noise).clamp(0, 1)
    stained = normal[:6].clone()
    away = torch.linspace(-4, 4, 64).square()
    stain = 0.05 * torch.exp(-(away + away[:, None]) / 2)
    stained += stain * torch.tensor([1.0, -1.0, 0.0])[:, None, None]

    def share_found(metric):
        map_and_score = MapAndScore([(metric, 2.5)], "location")
        metrics = map_and_score.metrics
        map_and_score.calibrate(errors_by_metric(reconstruction, normal, metrics))
        pairs = torch.cat([reconstruction[:6]] * 2), torch.cat([normal[:6], stained])
        values = map_and_score(errors_by_metric(*pairs, metrics))[1]
        return (values[6:, 0] > values[:6].max()).float().mean()

    assert share_found("ssim+msgms") < 1 == share_found("ssim+msgms+chroma")


def test_grey_images_repaired_in_grey_are_judged_by_their_structure():
    normal = {"ssim": 0.1 * torch.rand(12, 32, 40), "chroma": torch.zeros(12, 32, 40)}
    map_and_score = MapAndScore([("ssim+chroma", 1.0)], "location")
    map_and_score.calibrate(normal)
    defective = {name: error.clone() for name, error in normal.items()}
    defective["ssim"][:, 10:13, 10:13] += 0.1
    assert map_and_score(defective)[1].min() > map_and_score(normal)[1].max()


def test_pooling_equals_numpy():
    maps = torch.rand(3, 1, 20, 10)
    flat = maps.numpy().reshape(3, -1)
    np.testing.assert_allclose(pool_score(maps, "max").numpy()[:, 0], flat.max(1))
    np.testing.assert_allclose(pool_score(maps, "mean").numpy()[:, 0], flat.mean(1), rtol=1e-5)
    largest = np.sort(flat, axis=1)[:, -20:]
    np.testing.assert_allclose(pool_score(maps, "topk", 0.1).numpy()[:, 0], largest.mean(1), rtol=1e-5)
    np.testing.assert_allclose(pool_score(maps, "topk", 1e-9).numpy()[:, 0], flat.max(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"evidence": [("lpips", 1.0)]}, "got 'lpips'"),
        ({"evidence": [("l1", -1.0)]}, r"smoothing .* got -1"),
        ({"evidence": EVIDENCE, "pooling": "median"}, r"\['max', 'mean', 'topk'\], got 'median'"),
    ],
)
def test_rejects_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        MapAndScore(**arguments)


def border(height, width):
    """Weights of the border, by a plain loop."""
    ramp = min(height, width) / 16
    return np.array(
        [
            [0.5 + 0.5 * min(1, min(y + 1, x + 1, height - y, width - x) / ramp) for x in range(width)]
            for y in range(height)
        ]
    )


def test_exceeding_the_normal_level_counts_less_at_the_border():
    anomaly_map = torch.rand(2, 1, 32, 40)
    for level in (0.0, 0.4):
        expected = level + (anomaly_map.numpy() - level) * border(32, 40)
        np.testing.assert_allclose(weigh_border(anomaly_map, torch.tensor(level)).numpy(), expected, atol=1e-6)
