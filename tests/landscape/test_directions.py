"""Directions: as long as the filters, orthogonal, without biases and norms; the main ones of a training are its PCA."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from anomalib_lamp.landscape import filter_norms, random_directions, trajectory_directions, weights_of
from anomalib_lamp.landscape.directions import FilterLayout


def filters(layer, weight):
    """Return the filters of a layer's weight one by one, by loops: what makes one output channel."""
    if not isinstance(layer, nn.ConvTranspose2d):
        return list(weight)
    inputs = len(weight) // layer.groups
    return [
        weight[group * inputs : (group + 1) * inputs, channel]
        for group in range(layer.groups)
        for channel in range(weight.shape[1])
    ]


LAYERS = {
    "convolution": lambda: nn.Conv2d(4, 6, 3),
    "convolution in groups": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "linear": lambda: nn.Linear(5, 3),
    "transposed convolution": lambda: nn.ConvTranspose2d(4, 6, 3),
    "transposed convolution in groups": lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_every_filter_is_as_long_as_the_layers(make):
    layer = make()
    for direction in random_directions(layer, count=3):
        assert set(direction) == {"weight"}
        pairs = list(zip(filters(layer, layer.weight), filters(layer, direction["weight"]), strict=True))
        assert len(pairs) == len(layer.bias)
        for own, other in pairs:
            assert other.norm().item() == pytest.approx(own.norm().item(), rel=1e-5)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_directions_are_orthogonal_filter_by_filter(make):
    layer = make()
    one, two, three = random_directions(layer, count=3)
    for a, b in ((one, two), (one, three), (two, three)):
        for x, y in zip(filters(layer, a["weight"]), filters(layer, b["weight"]), strict=True):
            assert abs((x * y).sum().item()) < 1e-6


def test_a_filter_of_a_transposed_convolution_makes_one_output_channel():
    layer = nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False)
    rows = FilterLayout(transposed_groups=2).rows(layer.weight.detach()).clone()
    rows[4] = 0
    layer.weight.data = FilterLayout(transposed_groups=2).weight(rows, layer.weight)
    output = layer(torch.rand(1, 4, 5, 5))
    silent = [channel for channel in range(6) if not output[0, channel].any()]
    assert silent == [4]


def test_the_norms_are_those_of_the_filters_at_every_element():
    layer = nn.ConvTranspose2d(2, 3, 2)
    norms = filter_norms(layer)["weight"]
    for channel in range(3):
        expected = np.linalg.norm(layer.weight[:, channel].detach().numpy())
        np.testing.assert_allclose(norms[:, channel].numpy(), expected, rtol=1e-6)


def test_biases_norms_and_frozen_weights_do_not_move():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LayerNorm((4, 5)), nn.GroupNorm(2, 4))
    module.append(nn.Conv2d(4, 4, 3).requires_grad_(False))
    assert [list(direction) for direction in random_directions(module)] == [["0.weight"], ["0.weight"]]


def test_equal_seeds_give_equal_directions_and_leave_torchs_generator_alone():
    layer = nn.Conv2d(3, 4, 3)
    state = torch.get_rng_state()
    one, same, other = (random_directions(layer, seed=seed)[1]["weight"] for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_filter_of_one_number_moves_in_the_first_direction_only():
    layer = nn.Conv2d(1, 3, 1)
    one, two = random_directions(layer)
    assert torch.allclose(one["weight"].abs(), layer.weight.abs())
    assert not two["weight"].any()


def test_directions_have_the_memory_format_of_the_weights():
    layer = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    assert random_directions(layer)[0]["weight"].stride() == layer.weight.stride()


@pytest.mark.parametrize("module", [nn.BatchNorm2d(3), nn.ReLU(), nn.Linear(2, 2).requires_grad_(False)])
def test_a_module_without_filters_is_refused(module):
    with pytest.raises(ValueError, match="of two or more dimensions"):
        random_directions(module)


def test_a_module_of_zeros_is_refused():
    layer = nn.Linear(2, 2)
    nn.init.zeros_(layer.weight)
    with pytest.raises(ValueError, match="not all 0"):
        random_directions(layer)


def test_no_direction_is_refused():
    with pytest.raises(ValueError, match="count of 1 or more"):
        random_directions(nn.Linear(2, 2), count=0)


def test_the_main_directions_of_a_training_are_its_principal_components():
    layer = nn.Linear(4, 3)
    states = []
    for _ in range(6):
        layer.weight.data += torch.randn_like(layer.weight)
        layer.bias.data += 0.1 * torch.randn_like(layer.bias)
        states.append(weights_of(layer))
    trajectory = trajectory_directions(states)
    points = np.stack([np.concatenate([s["weight"].numpy().ravel(), s["bias"].numpy()]) for s in states])
    pca = PCA(2).fit(points)
    np.testing.assert_allclose(trajectory.explained, pca.explained_variance_ratio_, rtol=1e-4)
    expected = pca.transform(points) - pca.transform(points[-1:])
    np.testing.assert_allclose(np.abs(trajectory.coordinates), np.abs(expected), atol=1e-4)
    for direction, component in zip(trajectory.directions, pca.components_, strict=True):
        found = np.concatenate([direction["weight"].numpy().ravel(), direction["bias"].numpy()])
        assert abs(found @ component) == pytest.approx(1, abs=1e-5)


def test_the_first_state_is_where_its_coordinates_say():
    states = [{"w": torch.tensor([4.0, 2.0, 0.0])}, {"w": torch.tensor([1.0, 0.0, 0.0])}, {"w": torch.zeros(3)}]
    trajectory = trajectory_directions(states)
    a, b = trajectory.coordinates[0]
    reached = a * trajectory.directions[0]["w"] + b * trajectory.directions[1]["w"]
    torch.testing.assert_close(reached, states[0]["w"], check_dtype=False)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ([[0.0, 0.0], [1.0, 0.0]], "at least 3 states"),
        ([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]], "differ in 2 directions"),
        ([[0.0, 0.0], [1.0, 0.0], [2.0]], "the same architecture"),
    ],
)
def test_a_training_that_spans_no_plane_is_refused(states, message):
    with pytest.raises(ValueError, match=message):
        trajectory_directions([{"w": torch.tensor(state)} for state in states])
