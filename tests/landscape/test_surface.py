"""Surfaces: right on a quadratic, gaps counted, the module untouched, a stopped run continued, bad closures refused."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from anomalib_lamp.landscape import closure_of, grid, random_directions, read_surface, surface, weights_of

MATRIX = torch.tensor([[3.0, 1.0], [1.0, 2.0]])


def quadratic(weights):
    return {"loss": 0.5 * weights["w"] @ MATRIX @ weights["w"]}


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ConvTranspose2d(4, 3, 3))


def rulers(output):
    return {"l1": output.abs().mean(), "l2": output.square().mean()}


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def plane_of(module, closure, **options):
    return surface(closure, weights_of(module), random_directions(module), [grid(1.0, 5), grid(0.5, 3)], **options)


def test_a_plane_of_a_quadratic_is_its_formula():
    centre, axes = {"w": torch.tensor([0.5, -1.0])}, [grid(2.0, 5), grid(1.0, 3)]
    directions = [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([1.0, 1.0])}]
    found = surface(quadratic, centre, directions, axes)
    matrix = MATRIX.double().numpy()
    for i, a in enumerate(axes[0]):
        for j, b in enumerate(axes[1]):
            w = np.array([0.5 + a + b, -1.0 + b])
            assert found.values["loss"][i, j] == pytest.approx(0.5 * w @ matrix @ w, rel=1e-5)
    assert found.centre["loss"] == pytest.approx(found.values["loss"][2, 1])


def test_a_line_has_one_axis_of_51_points_by_default():
    found = surface(quadratic, {"w": torch.zeros(2)}, [{"w": torch.tensor([1.0, 0.0])}])
    np.testing.assert_allclose(found.values["loss"], 1.5 * np.linspace(-1, 1, 51) ** 2, atol=1e-6)


def test_rulers_of_one_pass_equal_those_of_passes_of_their_own():
    module, images = network().eval(), torch.rand(2, 3, 8, 8)
    both = plane_of(module, closure_of(module, images, rulers))
    alone = plane_of(module, closure_of(module, images, lambda output: {"l2": output.square().mean()}))
    assert np.array_equal(both.values["l2"], alone.values["l2"])


def test_a_surface_at_moved_weights_is_that_of_a_module_that_was_moved():
    module, images = network().eval(), torch.rand(2, 3, 8, 8)
    found = plane_of(module, closure_of(module, images, rulers))
    one, two = random_directions(module)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if name in one:
                weight += -1.0 * one[name] + 0.5 * two[name]
        assert found.values["l2"][0, 2] == pytest.approx(module(images).square().mean().item(), rel=1e-5)


def test_weights_and_statistics_of_norms_are_bit_identical_afterwards():
    module = network().train()
    before = state_of(module)
    plane_of(module, closure_of(module, torch.rand(2, 3, 8, 8), rulers))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.training


def test_weights_and_statistics_of_norms_are_bit_identical_after_an_exception():
    module, calls = network().train(), []
    before = state_of(module)

    def breaks(output):
        calls.append(output)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return rulers(output)

    with pytest.raises(KeyboardInterrupt):
        plane_of(module, closure_of(module, torch.rand(2, 3, 8, 8), breaks))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_equal_seeds_give_equal_surfaces_though_the_module_draws_numbers():
    module = network().train()  # with dropout
    closure = closure_of(module, torch.rand(2, 3, 8, 8), rulers)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = plane_of(module, closure)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    two = plane_of(module, closure)
    assert np.array_equal(one.values["l2"], two.values["l2"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_a_counted_gap(bad, tmp_path):
    def closure(weights):
        return {"loss": weights["w"].sum(), "other": torch.tensor(bad) if weights["w"] > 0.5 else torch.tensor(1.0)}

    file = tmp_path / "line.json"
    found = surface(closure, {"w": torch.zeros(1)}, [{"w": torch.ones(1)}], [grid(1.0, 5)], file)
    assert found.gaps == {"loss": 0, "other": 1}
    assert np.isnan(found.values["other"]).tolist() == [False] * 4 + [True]
    assert read_surface(file).gaps == found.gaps


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    module, images, calls = network().eval(), torch.rand(2, 3, 8, 8), []
    whole = plane_of(module, closure_of(module, images, rulers))

    def stops_at(last):
        def counted(output):
            calls.append(output)
            if len(calls) == last:
                raise KeyboardInterrupt
            return rulers(output)

        return closure_of(module, images, counted)

    file = tmp_path / "plane.json"
    with pytest.raises(KeyboardInterrupt):
        plane_of(module, stops_at(9), file=file, metadata={"images": 2})
    assert read_surface(file).gaps["l2"] == 15 - 7  # one call was for the centre, the last one stopped
    calls.clear()
    found = plane_of(module, stops_at(None), file=file, metadata={"images": 2})
    assert len(calls) == 1 + 15 - 7
    assert np.array_equal(found.values["l2"], whole.values["l2"])
    kept = read_surface(file)
    assert np.array_equal(kept.values["l1"], whole.values["l1"])
    assert kept.metadata == {"images": 2}
    assert [axis.tolist() for axis in kept.axes] == [axis.tolist() for axis in whole.axes]


def test_a_file_of_another_surface_is_not_taken_over(tmp_path):
    module, file = network().eval(), tmp_path / "plane.json"
    images = torch.rand(2, 3, 8, 8)
    plane_of(module, closure_of(module, images, rulers), file=file)
    with pytest.raises(ValueError, match="another surface"):  # other images
        plane_of(module, closure_of(module, images / 2, rulers), file=file)
    with torch.no_grad():
        module[0].weight[0, 0, 0, 0] += 1e-4
    with pytest.raises(ValueError, match="another surface"):
        plane_of(module, closure_of(module, images, rulers), file=file)


@pytest.mark.parametrize("text", ["", "[1]", json.dumps({"axes": []})])
def test_a_file_without_a_surface_is_refused(tmp_path, text):
    (tmp_path / "notes.json").write_text(text)
    with pytest.raises(ValueError, match="Expected a surface"):
        read_surface(tmp_path / "notes.json")
    assert (tmp_path / "notes.json").read_text() == text


def test_what_one_ruler_explains_of_another_is_the_square_of_their_correlation():
    def closure(weights):
        return {"a": weights["w"].square().sum(), "b": weights["w"].square().sum() + weights["w"].sum() ** 3}

    found = surface(closure, {"w": torch.zeros(1)}, [{"w": torch.ones(1)}], [grid(1.0, 21)])
    slope, intercept = np.polyfit(found.values["a"], found.values["b"], 1)
    rest = found.values["b"] - slope * found.values["a"] - intercept
    assert found.explained("b", "a") == pytest.approx(1 - rest.var() / found.values["b"].var())
    assert found.explained("a", "a") == pytest.approx(1)


@pytest.mark.parametrize(
    ("closure", "error", "message"),
    [
        (lambda weights: {"loss": weights["w"]}, ValueError, "Expected a scalar for 'loss', got shape"),
        (lambda weights: weights["w"].sum(), TypeError, "scalars by name, got Tensor"),
        (lambda _: {}, ValueError, "at least one scalar"),
    ],
)
def test_a_closure_that_returns_no_scalars_is_refused(closure, error, message):
    with pytest.raises(error, match=message):
        surface(closure, {"w": torch.zeros(2)}, [{"w": torch.ones(2)}])


@pytest.mark.parametrize(("radius", "steps"), [(0, 51), (-1, 51), (float("nan"), 51), (1, 50), (1, 1)])
def test_a_grid_without_extent_or_middle_is_refused(radius, steps):
    with pytest.raises(ValueError, match="Expected a"):
        grid(radius, steps)


@pytest.mark.parametrize(
    ("directions", "axes", "message"),
    [
        ([], None, "one or two directions"),
        ([{"w": torch.ones(2)}], [[0.0], [0.0]], "one or two directions"),
        ([{"w": torch.ones(3)}], None, "move the weights of the centre"),
        ([{"v": torch.ones(2)}], None, "where the centre has none"),
        ([{"w": torch.ones(2)}], [[0.0, float("nan")]], "finite distances"),
    ],
)
def test_directions_that_do_not_fit_are_refused(directions, axes, message):
    with pytest.raises(ValueError, match=message):
        surface(quadratic, {"w": torch.zeros(2)}, directions, axes)
