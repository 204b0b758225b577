"""Figures of how sharp a minimum is: slope, curvature, and what perturbations of the weights do to the loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor, nn

from .closure import Closure, losses_at
from .curvature import Hessian, Spectrum, loss_and_gradient, spectrum
from .directions import Weights, filter_layouts, filter_norms, flat, random_directions, weights_of
from .surface import moved

RADII = (0.05, 0.1, 0.2, 0.5)
NEAREST, FURTHEST = 1e-3, 8.0  # where the search for a doubled loss begins and ends


@dataclass(frozen=True)
class Perturbed:
    """What perturbations of one size do to a loss: every filter moves by ``radius`` times its norm.

    Attributes:
        radius: Their size, as a fraction of each filter's norm.
        mean: Mean of ``L(w + perturbation) / L(w) - 1`` over random directions; ``None`` where it is not finite.
        standard_error: Of the mean.
        worst: The largest value that ascent finds within the radius; ``None`` if it was not asked for.
    """

    radius: float
    mean: float | None
    standard_error: float | None
    worst: float | None


@dataclass(frozen=True)
class Sharpness:
    """How sharp a loss is around some weights; T is the diagonal of the norms of the filters.

    Attributes:
        loss: The loss L at the weights.
        gradient_norm: Norm of the gradient.
        scaled_gradient: ``|T gradient| / L``: by which share of itself the loss changes along the steepest filters. It
            tells whether the weights are at a minimum.
        hessian: Spectrum of the Hessian H over all weights; ``None`` without curvature.
        scaled_hessian: Spectrum of ``T H T`` over the filters; the same.
        largest_over_loss: ``largest eigenvalue of T H T / L``. Neither the scale of the loss nor that of a filter
            matters.
        trace_over_loss: ``trace of T H T / L``, the same.
        perturbed: Random and worst perturbations, by their size.
        doubling_radius: Mean over random directions of the size at which the loss is twice L; ``None`` if it does not
            get there along one of them.
        doubling_error: Its standard error.
        without_curvature: Why there is no curvature; empty if there is.
    """

    loss: float
    gradient_norm: float
    scaled_gradient: float | None
    hessian: Spectrum | None
    scaled_hessian: Spectrum | None
    largest_over_loss: float | None
    trace_over_loss: float | None
    perturbed: list[Perturbed]
    doubling_radius: float | None
    doubling_error: float | None
    without_curvature: str = ""


def sharpness(
    closure: Closure,
    module: nn.Module,
    rulers: Sequence[str] | None = None,
    without_curvature: str = "",
    radii: Sequence[float] = RADII,
    directions: int = 20,
    ascent_steps: int = 20,
    restarts: int = 5,
    doubling_steps: int = 10,
    trace_samples: int = 30,
    seed: int = 0,
) -> dict[str, Sharpness]:
    """Return how sharp the losses of a module are around its weights.

    Args:
        closure: Takes weights by name, returns scalars by ruler; see :func:`~anomalib_lamp.landscape.closure_of`.
        module: The module whose weights are the centre; they do not change.
        rulers: Which losses; all if not given.
        without_curvature: Why a loss has no useful second derivative, such as "L1 has no second derivative"; then there
            are no Hessians. L1 has a kink at 0, and elsewhere only the curvature of the network.
        radii: Sizes of the perturbations, as fractions of each filter's norm; above 0.
        directions: Number of random directions, 2 or more.
        ascent_steps: Steps of the search for the worst perturbation of each size; 0 leaves it out.
        restarts: How often it begins, each time elsewhere.
        doubling_steps: Halvings of the search for the doubled loss; 10 find it to a hundredth; 0 leaves it out.
        trace_samples: Products with a vector for each trace.
        seed: Seed of all that is random. Use the same for models that are compared.

    Raises:
        ValueError: If the module has no filters, a ruler is unknown, a radius is not above 0, or a loss is not finite
            or has no gradient at the weights.

    Example:
        >>> from anomalib_lamp.landscape import closure_of
        >>> layer, x = nn.Linear(3, 2), torch.randn(8, 3)
        >>> found = sharpness(closure_of(layer, x, lambda y: {"l2": y.square().mean()}), layer, ascent_steps=5)
        >>> found["l2"].scaled_hessian.largest > 0 and found["l2"].perturbed[0].worst > found["l2"].perturbed[0].mean
        True

    Source: filters as in Li et al. 2018, https://arxiv.org/abs/1712.09913; the worst case as in Foret et al. 2021,
    https://arxiv.org/abs/2010.01412, for each filter; see also Andriushchenko et al. 2023,
    https://arxiv.org/abs/2302.07011, for what such figures do not tell.
    """
    if not radii or min(radii) <= 0 or directions < 2:
        msg = f"Expected radii above 0 and 2 or more directions, got {list(radii)} and {directions}."
        raise ValueError(msg)
    at_centre = losses_at(closure, weights_of(module))
    rulers = list(at_centre) if rulers is None else list(rulers)
    if unknown := [ruler for ruler in rulers if ruler not in at_centre]:
        msg = f"Expected rulers from {list(at_centre)}, got {unknown}."
        raise ValueError(msg)
    around = _Around(closure, module, directions, restarts, seed)
    of_radii = {radius: around.random_changes(radius) for radius in radii}
    found = {}
    for ruler in rulers:
        loss, gradient = around.loss_and_gradient(ruler)
        slope = math.hypot(*(float((gradient[name] * norm).norm()) for name, norm in around.norms.items()))
        hessian, scaled = (None, None) if without_curvature else around.curvature(ruler, trace_samples)
        doubling, doubling_error = around.doubling_radius(ruler, doubling_steps)
        found[ruler] = Sharpness(
            loss=loss,
            gradient_norm=math.hypot(*(float(part.norm()) for part in gradient.values())),
            scaled_gradient=_ratio(slope, loss),
            hessian=hessian,
            scaled_hessian=scaled,
            largest_over_loss=_ratio(scaled.largest if scaled else None, loss),
            trace_over_loss=_ratio(scaled.trace if scaled else None, loss),
            perturbed=[
                Perturbed(radius, *_mean_and_error(of_radii[radius][ruler]), worst=worst)
                for radius, worst in zip(
                    sorted(radii), around.worst_changes(ruler, sorted(radii), ascent_steps), strict=True
                )
            ],
            doubling_radius=doubling,
            doubling_error=doubling_error,
            without_curvature=without_curvature,
        )
    return found


def log_ratio(values: ArrayLike, base: ArrayLike) -> tuple[float, float, float] | None:
    """Return the geometric mean of paired ratios and its 95 % interval, by Student's t of their logarithms.

    Args:
        values: Positive numbers, (N,).
        base: What they are compared with, one each.

    Returns:
        Mean, lower and upper end; ``None`` with fewer than two pairs of numbers above 0.

    Example:
        >>> tuple(round(number, 3) for number in log_ratio([2.0, 4.0, 8.0], [1.0, 2.0, 4.0]))
        (2.0, 2.0, 2.0)
    """
    pairs = np.array([values, base], dtype=float)
    usable = (np.isfinite(pairs) & (pairs > 0)).all(axis=0)
    logarithms = np.log(pairs[0, usable] / pairs[1, usable])
    if len(logarithms) < 2:
        return None
    mean, error = logarithms.mean(), logarithms.std(ddof=1) / math.sqrt(len(logarithms))
    half = stats.t.ppf(0.975, len(logarithms) - 1) * error
    return tuple(float(math.exp(value)) for value in (mean, mean - half, mean + half))  # type: ignore[return-value]


class _Around:
    """What is measured around the weights of a module, along the same random directions for all rulers."""

    def __init__(self, closure: Closure, module: nn.Module, directions: int, restarts: int, seed: int) -> None:
        self.closure = closure
        self.weights = weights_of(module)
        self.norms = filter_norms(module)
        self.layouts = filter_layouts(module)
        self.ways = random_directions(module, directions, seed)
        self.starts = random_directions(module, restarts, seed + 1)
        self.seed = seed
        self.losses = losses_at(closure, self.weights)

    def loss_and_gradient(self, ruler: str) -> tuple[float, Weights]:
        """Return the loss at the weights, and its gradient."""
        loss, gradient = loss_and_gradient(self.closure, ruler, self.weights)
        if not math.isfinite(loss):
            msg = f"Expected a finite loss at the weights for {ruler!r}, got {loss}. Look at the weights and images."
            raise ValueError(msg)
        return loss, gradient

    def random_changes(self, radius: float) -> dict[str, list[float]]:
        """Return by ruler what a step along each direction does to the loss, relative to it."""
        losses = [losses_at(self.closure, moved(self.weights, way, radius)) for way in self.ways]
        return {ruler: [self._change(ruler, found[ruler]) for found in losses] for ruler in self.losses}

    def _change(self, ruler: str, loss: float) -> float:
        return loss / self.losses[ruler] - 1 if self.losses[ruler] else math.nan

    def curvature(self, ruler: str, samples: int) -> tuple[Spectrum, Spectrum]:
        """Return the spectra of the Hessian, and of the Hessian scaled by the norms of the filters."""
        hessian = Hessian(self.closure, ruler, self.weights)
        scale = flat({name: self.norms.get(name, torch.zeros_like(weight)) for name, weight in self.weights.items()})
        product, size = hessian.scaled_product(scale)
        return (
            spectrum(hessian.product, len(scale), scale, samples, self.seed),
            spectrum(product, size, scale, samples, self.seed),
        )

    def worst_changes(self, ruler: str, radii: Sequence[float], steps: int) -> list[float | None]:
        """Return the largest change that ascent finds within each radius, no filter moved by more of its norm.

        What is found within a smaller radius is within a larger one, too.
        """
        if not steps:
            return [None] * len(radii)
        largest, found = -math.inf, []
        for radius in radii:
            largest = max(largest, *(self._climb(ruler, start, radius, steps) for start in self.starts))
            worst = self._change(ruler, largest)
            found.append(worst if math.isfinite(worst) else None)
        return found

    def _climb(self, ruler: str, start: Weights, radius: float, steps: int) -> float:
        """Return the largest loss on the way up from half the radius along a direction; infinity for any gap."""
        step = {name: way * (radius / 2) for name, way in start.items()}
        largest = -math.inf
        for number in range(steps + 1):
            loss, gradient = loss_and_gradient(self.closure, ruler, moved(self.weights, step, 1.0))
            if not math.isfinite(loss):
                return math.inf
            largest = max(largest, loss)
            share = 0.5 * (1 - number / (steps + 1))  # of the radius, falling
            step = {name: self._climbed(name, way, gradient[name], radius, share) for name, way in step.items()}
        return largest

    def _climbed(self, name: str, step: Tensor, gradient: Tensor, radius: float, share: float) -> Tensor:
        """Return a step moved along the gradient, each filter by a share of the radius and back within the radius."""
        layout = self.layouts[name]
        limits = radius * layout.rows(self.norms[name])[:, :1]
        rows = layout.rows(step) + share * limits * nn.functional.normalize(layout.rows(gradient), dim=1)
        lengths = rows.norm(dim=1, keepdim=True)
        return layout.weight(torch.where(lengths > limits, rows * limits / lengths, rows), step)

    def doubling_radius(self, ruler: str, steps: int) -> tuple[float | None, float | None]:
        """Return how far along the directions the loss doubles, or ceases to be finite, and the standard error."""
        return _mean_and_error([self._doubled_at(ruler, way, steps) for way in self.ways]) if steps else (None, None)

    def _doubled_at(self, ruler: str, way: Weights, steps: int) -> float:
        def doubled(radius: float) -> bool:
            value = losses_at(self.closure, moved(self.weights, way, radius))[ruler]
            return math.isnan(value) or value >= 2 * self.losses[ruler]

        if not doubled(FURTHEST):
            return math.nan
        low, high = math.log(NEAREST), math.log(FURTHEST)
        for _ in range(steps):
            middle = (low + high) / 2
            low, high = (low, middle) if doubled(math.exp(middle)) else (middle, high)
        return math.exp((low + high) / 2)


def _mean_and_error(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return mean and standard error; ``None`` for both if a value is not finite."""
    found = np.array(values)
    if not np.isfinite(found).all():
        return None, None
    return float(found.mean()), float(found.std(ddof=1) / math.sqrt(len(found)))


def _ratio(value: float | None, loss: float) -> float | None:
    return None if value is None or loss == 0 else value / loss
