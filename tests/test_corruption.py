"""What corruption changes, how much of it, and that it can be repeated."""

import pytest
import torch

from anomalib_lamp.corruption import FILLINGS, Corruption, blob, hairlines


def photographs(n=8, size=64):
    """Images with a gradient: every place differs from every other, and no value is at the ends of the range."""
    rows, columns = torch.meshgrid(torch.linspace(0.2, 0.6, size), torch.linspace(0.3, 0.7, size), indexing="ij")
    return torch.stack([rows, columns, (rows + columns) / 2])[None] * torch.linspace(0.8, 1.2, n)[:, None, None, None]


@pytest.mark.parametrize("kind", FILLINGS)
def test_every_kind_changes_part_of_the_image_and_stays_in_range(kind):
    corruption = Corruption(kinds=[kind], noise=0.0)
    images = photographs()
    changed = torch.cat([(corruption(images) - images).abs().amax(1) > 1e-3 for _ in range(10)])
    assert 0.005 < changed.float().mean() < 0.5
    damaged = corruption(images)
    assert damaged.shape == images.shape
    assert 0 <= damaged.min() <= damaged.max() <= 1


def test_the_input_is_left_alone():
    images = photographs()
    before = images.clone()
    Corruption()(images)
    assert torch.equal(images, before)


def test_the_seed_of_torch_repeats_it():
    images = photographs()
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(Corruption()(images))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_strength_scales_the_damage_and_zero_is_none():
    images = photographs(32)
    damage = []
    for strength in (0.0, 0.3, 1.0):
        torch.manual_seed(0)
        damage.append((Corruption(strength)(images) - images).abs().mean())
    assert damage[0] == 0
    assert 0 < damage[1] < 0.6 * damage[2]


def test_noise_has_at_most_its_standard_deviation():
    images = torch.full((64, 3, 32, 32), 0.5)
    deviations = (Corruption(regions=0, noise=0.1)(images) - images).std(dim=(1, 2, 3))
    assert deviations.max() < 0.11
    assert deviations.mean() == pytest.approx(0.05, abs=0.01)


def testblobs_have_the_areas_they_are_said_to_have():
    areas = torch.cat([blob(torch.zeros(32, 3, 64, 64), 0.004, 0.25).mean(dim=(1, 2, 3)) for _ in range(20)])
    assert areas.quantile(0.95) < 0.3
    assert areas.quantile(0.05) < 0.01 < areas.median() < 0.1


def testhairlines_are_thin():
    """Few of their pixels survive an erosion of 7 pixels; blobs of the same area would keep most."""
    lines = torch.cat([hairlines(torch.zeros(16, 3, 128, 128)) for _ in range(5)])
    eroded = -torch.nn.functional.max_pool2d(-lines, 7, stride=1, padding=3)
    assert lines.sum() > 0
    assert eroded.sum() < 0.2 * lines.sum()


def test_a_single_image_and_other_shapes():
    for shape in [(1, 3, 64, 64), (2, 1, 40, 100), (3, 3, 28, 28)]:
        assert Corruption()(torch.rand(shape)).shape == shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": 1.5}, r"strength in \[0, 1\], got 1.5"),
        ({"kinds": ["rain"]}, r"\['colour', 'texture', 'shift', 'swap', 'recolour'\], got \['rain'\]"),
        ({"kinds": []}, r"got \[\]"),
    ],
)
def test_rejects_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Corruption(**arguments)
