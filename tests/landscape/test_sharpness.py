"""Figures of sharpness: right on quadratics and against curvlinops, free of scale, harmless to the module."""

import math

import numpy as np
import pytest
import torch
from curvlinops import HessianLinearOperator
from scipy import stats
from torch import nn

from anomalib_lamp.functional import amplify
from anomalib_lamp.landscape import closure_of, filter_norms, log_ratio, random_directions, sharpness
from anomalib_lamp.landscape.curvature import Hessian, spectrum

SIZE = 200


def symmetric(size=SIZE):
    """Return a matrix with known eigenvalues: a few large ones, some negative."""
    basis = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64)).Q
    values = torch.cat([torch.tensor([9.0, 4.0, -5.0]), 0.01 * torch.randn(size - 3)]).double()
    return (basis * values) @ basis.T, values


class Quadratic(nn.Module):
    """0.5 w'Aw + 1 about w, one filter."""

    def __init__(self, matrix):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, len(matrix), dtype=matrix.dtype))
        self.register_buffer("matrix", matrix)
        self.register_buffer("minimum", torch.ones(len(matrix), dtype=matrix.dtype))

    def forward(self, _):
        step = self.weight[0] - self.minimum
        return 1 + 0.5 * step @ self.matrix @ step


def of_quadratic(matrix, **options):
    module = Quadratic(matrix)
    return sharpness(closure_of(module, torch.zeros(1), lambda loss: {"loss": loss}), module, **options)["loss"]


def small_network():
    return nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.BatchNorm2d(3),
        nn.LeakyReLU(0.2, inplace=True),
        nn.ConvTranspose2d(3, 2, 3),
        nn.Sigmoid(),
    )


@pytest.fixture
def trained():
    """A small network, what it is called with, and what it should return."""
    network, images = small_network().train(), torch.rand(4, 2, 8, 8)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(20):
        optimizer.zero_grad()
        (network(images) - images).square().mean().backward()
        optimizer.step()
    network.zero_grad()
    return network.eval(), images, torch.rand(4, 2, 8, 8)


def closure_on(network, images, target):
    def rulers(output):
        error = (output - target).square()
        return {"base": error.mean(), "LAMP": amplify(error).mean()}

    return closure_of(network, images, rulers)


def test_figures_of_a_known_hessian_are_exact():
    matrix, values = symmetric()
    module = Quadratic(matrix)
    closure = closure_of(module, torch.zeros(1), lambda loss: {"loss": loss})
    hessian = Hessian(closure, "loss", dict(module.named_parameters()))
    found = spectrum(hessian.product, SIZE, matrix, samples=60)
    assert found.largest == pytest.approx(values.max().item(), rel=1e-3)
    assert found.smallest == pytest.approx(values.min().item(), rel=1e-3)
    assert found.trace == pytest.approx(values.sum().item(), rel=1e-3)
    assert found.norm == pytest.approx(values.norm().item(), rel=1e-3)
    assert found.trace_error < 0.1


def test_float32_lanczos_finds_the_same_eigenvalues(monkeypatch):
    monkeypatch.setattr("anomalib_lamp.landscape.curvature.FLOAT64_SIZE", 0)
    matrix, values = symmetric()
    matrix = matrix.float()
    found = spectrum(lambda vector: matrix @ vector, SIZE, matrix)
    assert found.largest == pytest.approx(values.max().item(), rel=1e-3)
    assert found.smallest == pytest.approx(values.min().item(), rel=1e-3)


@pytest.mark.parametrize("ruler", ["base", "LAMP"])
def test_the_hessian_of_a_network_is_that_of_curvlinops(trained, ruler):
    network, images, target = trained
    network = network.double()
    images, target = images.double(), target.double()

    class Loss(nn.Module):
        reduction = "mean"

        def forward(self, output, expected):
            error = (output - expected).square()
            return (error if ruler == "base" else amplify(error)).mean()

    loss = Loss()
    weights = list(network.parameters())
    operator = HessianLinearOperator(network, loss, weights, [(images, target)], num_data=len(images))
    matrix = (operator @ torch.eye(operator.shape[1], dtype=torch.float64)).detach().numpy()
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    found = sharpness(closure_on(network, images, target), network, [ruler], ascent_steps=0, trace_samples=300)[ruler]
    assert len(matrix) > 64  # so that nothing is written down
    assert found.hessian.largest == pytest.approx(values[-1], rel=1e-3)
    assert found.hessian.smallest == pytest.approx(values[0], rel=1e-3)
    assert found.hessian.trace == pytest.approx(np.trace(matrix), rel=1e-3)
    assert found.hessian.norm == pytest.approx(np.linalg.norm(matrix), rel=1e-3)
    norms = filter_norms(network)
    scale = np.concatenate(
        [norms.get(name, torch.zeros_like(w)).numpy().ravel() for name, w in network.named_parameters()]
    )
    scaled = (scale[:, None] * matrix * scale)[scale > 0][:, scale > 0]
    assert found.scaled_hessian.largest == pytest.approx(np.linalg.eigvalsh(scaled)[-1], rel=1e-3)
    assert found.scaled_hessian.trace == pytest.approx(np.trace(scaled), rel=1e-3)
    gradient = np.concatenate(
        [part.numpy().ravel() for part in torch.autograd.grad(loss(network(images), target), weights)]
    )
    assert found.gradient_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
    assert found.scaled_gradient == pytest.approx(np.linalg.norm(scale * gradient) / found.loss, rel=1e-5)


def test_random_perturbations_are_the_mean_over_directions(trained):
    network, images, target = trained
    found = sharpness(closure_on(network, images, target), network, ["base"], "not wanted", [0.1], 4, 0)["base"]
    changes = []
    for direction in random_directions(network, 4):
        moved = small_network().eval()
        moved.load_state_dict(network.state_dict())
        with torch.no_grad():
            for name, weight in moved.named_parameters():
                weight += 0.1 * direction.get(name, torch.zeros(()))
            changes.append((moved(images) - target).square().mean().item() / found.loss - 1)
    assert found.perturbed[0].mean == pytest.approx(np.mean(changes), rel=1e-3)
    assert found.perturbed[0].standard_error == pytest.approx(stats.sem(changes), rel=1e-3)


def test_the_worst_perturbation_of_a_quadratic_lies_along_its_largest_eigenvalue():
    matrix, values = symmetric()
    found = of_quadratic(matrix, radii=[0.1], directions=2)
    length = 0.1 * math.sqrt(SIZE)  # of the filter
    assert found.perturbed[0].worst == pytest.approx(0.5 * values.max().item() * length**2, rel=0.02)
    assert found.perturbed[0].mean < found.perturbed[0].worst


def test_the_loss_doubles_where_the_formula_says():
    found = of_quadratic(8 * torch.eye(SIZE), directions=3, ascent_steps=0, without_curvature="not wanted")
    assert found.doubling_radius == pytest.approx(math.sqrt(2 / 8 / SIZE), rel=0.01)
    assert found.doubling_error < 1e-6


def test_a_loss_that_never_doubles_has_no_radius():
    found = of_quadratic(torch.zeros(SIZE, SIZE) + 1e-9, directions=2, ascent_steps=0, without_curvature="flat")
    assert found.doubling_radius is None


def test_headline_figures_are_free_of_the_scale_of_loss_and_filters(trained):
    network, images, target = trained

    def headline(factor):
        closure = closure_of(network, images, lambda output: {"loss": factor * (output - target).square().mean()})
        found = sharpness(closure, network, radii=[0.1], directions=2, ascent_steps=3)["loss"]
        return found.largest_over_loss, found.trace_over_loss, found.perturbed[0].mean, found.perturbed[0].worst

    before = headline(1.0)
    assert headline(1000.0) == pytest.approx(before, rel=1e-3)
    with torch.no_grad():  # the first layer's filters three times as long, undone by the norm behind it
        network[0].weight *= 3
        network[0].bias *= 3
        network[1].running_mean *= 3
        network[1].weight /= 3
    assert headline(1.0) == pytest.approx(before, rel=1e-3)


def test_a_sharper_quadratic_has_larger_figures():
    flat, sharp = (of_quadratic(k * torch.eye(80), radii=[0.1], directions=2) for k in (1.0, 5.0))
    assert sharp.largest_over_loss == pytest.approx(5 * flat.largest_over_loss, rel=1e-3)
    assert sharp.trace_over_loss == pytest.approx(5 * flat.trace_over_loss, rel=1e-3)
    assert sharp.doubling_radius < flat.doubling_radius


def test_the_module_is_bit_identical_afterwards_and_after_an_exception(trained):
    network, images, target = trained
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    closure = closure_on(network, images, target)
    sharpness(closure, network, directions=2, ascent_steps=2, restarts=1, radii=[0.1])
    calls = []

    def breaks(weights):
        calls.append(1)
        if len(calls) > 4:
            raise RuntimeError
        return closure(weights)

    with pytest.raises(RuntimeError):
        sharpness(breaks, network, directions=2)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())


def test_l1_has_finite_perturbations_and_a_reason_instead_of_curvature(trained):
    network, images, target = trained
    closure = closure_of(network, images, lambda output: {"l1": (output - target).abs().mean()})
    found = sharpness(closure, network, without_curvature="L1 has a kink at 0", directions=2, ascent_steps=2)["l1"]
    assert found.hessian is None
    assert found.largest_over_loss is None
    assert found.without_curvature == "L1 has a kink at 0"
    assert [perturbed.radius for perturbed in found.perturbed] == [0.05, 0.1, 0.2, 0.5]
    assert all(math.isfinite(perturbed.mean) for perturbed in found.perturbed)


@pytest.mark.parametrize("inputs", [3, 100])  # the Hessian is written down, or not
@pytest.mark.parametrize("ruler", [lambda y: y.abs().mean(), lambda y: y.mean()])
def test_a_loss_without_second_derivative_has_a_hessian_of_0(inputs, ruler):
    layer, x = nn.Linear(inputs, 1, bias=False), torch.rand(4, inputs)
    nn.init.ones_(layer.weight)
    found = sharpness(closure_of(layer, x, lambda y: {"loss": ruler(y)}), layer, directions=2, ascent_steps=0)["loss"]
    assert (found.hessian.largest, found.hessian.smallest, found.hessian.trace, found.hessian.norm) == (0, 0, 0, 0)
    assert found.largest_over_loss == 0


def test_a_loss_without_gradient_is_refused():
    layer = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="tensor with a gradient"):
        sharpness(lambda _: {"loss": torch.tensor(1.0)}, layer, directions=2)


def test_a_perturbation_whose_loss_is_not_finite_has_no_mean():
    layer = nn.Linear(4, 2, bias=False)

    def closure(weights):
        far = (weights["weight"] - layer.weight.detach()).norm() > 0.3 * layer.weight.norm()
        return {"loss": (weights["weight"].square().sum() + 1) * (math.nan if far else 1.0)}

    found = sharpness(closure, layer, radii=[0.1, 0.5], directions=2, ascent_steps=1, restarts=1)["loss"]
    assert found.perturbed[0].mean is not None
    assert found.perturbed[1].mean is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radii": [0.0, 0.1]}, "radii above 0"),
        ({"radii": []}, "radii above 0"),
        ({"directions": 1}, "2 or more directions"),
        ({"rulers": ["l3"]}, "Expected rulers from"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    layer = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=message):
        sharpness(closure_of(layer, torch.rand(2, 3), lambda y: {"l2": y.square().mean()}), layer, **options)


def test_a_loss_that_is_not_finite_at_the_weights_is_refused():
    layer = nn.Linear(3, 2)
    closure = closure_of(layer, torch.rand(2, 3), lambda y: {"bad": y.sum() * math.nan})
    with pytest.raises(ValueError, match="finite loss at the weights"):
        sharpness(closure, layer, directions=2)


def test_paired_log_ratios_are_a_t_interval_of_logarithms():
    values, base = np.exp(np.random.default_rng(0).normal(size=(2, 6)))
    mean, low, high = log_ratio(values, base)
    expected = stats.ttest_rel(np.log(values), np.log(base))
    interval = expected.confidence_interval(0.95)
    assert math.log(mean) == pytest.approx(np.mean(np.log(values / base)))
    assert (math.log(low), math.log(high)) == pytest.approx((interval.low, interval.high))
    assert log_ratio([1.0, 2.0], [1.0, 0.0]) is None
