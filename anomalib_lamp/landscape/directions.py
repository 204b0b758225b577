"""Directions in the space of a module's weights: random ones as long as its filters, main ones of a training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvTransposeNd

Weights = dict[str, Tensor]

NORM_LAYERS = (_NormBase, nn.GroupNorm, nn.LayerNorm)
PARALLEL = 1e-6  # what is left of a filter that lies in the span of the others, relative to its length


@dataclass(frozen=True)
class FilterLayout:
    """How the filters of a weight lie: along its first axis, or along the second one of a transposed convolution.

    Attributes:
        transposed_groups: Number of groups of a transposed convolution; 0 for any other weight.
    """

    transposed_groups: int = 0

    def rows(self, weight: Tensor) -> Tensor:
        """Return the filters of a weight as rows (F, n)."""
        if self.transposed_groups:  # (in, out / groups, ...)
            weight = weight.unflatten(0, (self.transposed_groups, -1)).transpose(1, 2).flatten(0, 1)
        return weight.flatten(1)

    def weight(self, rows: Tensor, like: Tensor) -> Tensor:
        """Return the weight whose filters are ``rows``, in the shape and memory format of another one."""
        if self.transposed_groups:
            inputs = len(like) // self.transposed_groups
            rows = rows.reshape(self.transposed_groups, like.shape[1], inputs, *like.shape[2:]).transpose(1, 2)
        return torch.empty_like(like).copy_(rows.reshape(like.shape))


def weights_of(module: nn.Module) -> Weights:
    """Return copies of the weights of a module that are trained, by name."""
    return {name: weight.detach().clone() for name, weight in module.named_parameters() if weight.requires_grad}


def filter_layouts(module: nn.Module) -> dict[str, FilterLayout]:
    """Return how the filters of a module's weights lie, by name; biases and weights of norms have none."""
    layouts = {}
    for prefix, layer in module.named_modules():
        groups = layer.groups if isinstance(layer, _ConvTransposeNd) else 0
        for name, weight in layer.named_parameters(prefix, recurse=False):
            if weight.requires_grad and weight.ndim > 1 and not isinstance(layer, NORM_LAYERS):
                layouts[name] = FilterLayout(groups)
    return layouts


def filter_norms(module: nn.Module) -> Weights:
    """Return for every element of a weight the Euclidean norm of its filter: the diagonal T of the sharpness figures.

    Args:
        module: Any module. Biases and weights of norms have no filters and are left out.

    Raises:
        ValueError: If there is no filter, or all are 0.

    Example:
        >>> layer = nn.ConvTranspose2d(2, 3, 1)  # its filters lie along the second axis
        >>> layer.weight.data = torch.tensor([[3.0, 0.0, 1.0], [4.0, 2.0, 0.0]]).reshape(2, 3, 1, 1)
        >>> filter_norms(layer)["weight"].squeeze()
        tensor([[5., 2., 1.],
                [5., 2., 1.]])
    """
    weights, norms = weights_of(module), {}
    for name, layout in filter_layouts(module).items():
        rows = layout.rows(weights[name])
        norms[name] = layout.weight(rows.norm(dim=1, keepdim=True).expand_as(rows), weights[name])
    if not any(norm.any() for norm in norms.values()):
        msg = (
            f"Expected a {type(module).__name__} with filters: trained weights of two or more dimensions that are not "
            "all 0 and not of norms. Got none. Give the network itself, after its training."
        )
        raise ValueError(msg)
    return norms


def random_directions(module: nn.Module, count: int = 2, seed: int = 0) -> list[Weights]:
    r"""Return random directions whose filters are as long as those of a module.

    Every filter is drawn from a Gaussian, made orthogonal to the same filter of the earlier directions, and scaled to
    the norm of the module's filter: :math:`d_f = \|w_f\| \, g_f / \|g_f\|`. So a step of 0.1 moves each filter by a
    tenth of its length, and directions are orthogonal as a whole, too. Biases and weights of norms do not move. Filters
    of transposed convolutions lie along the second axis of their weight; Li et al.'s code takes the first one, and does
    not make directions orthogonal.

    Args:
        module: Any module.
        count: Number of directions, 1 or more. Filters with fewer elements do not move in the directions beyond.
        seed: Seed of the draw; torch's global generators are neither used nor changed.

    Returns:
        For each direction, its filters by the names of the weights.

    Raises:
        ValueError: If the module has no filters, or ``count`` is less than 1.

    Example:
        >>> layer = nn.Conv2d(2, 3, 3)
        >>> first, second = random_directions(layer)
        >>> torch.allclose(first["weight"].flatten(1).norm(dim=1), layer.weight.flatten(1).norm(dim=1))
        True
        >>> abs((first["weight"] * second["weight"]).sum().item()) < 1e-6
        True

    Source: Li et al., "Visualizing the Loss Landscape of Neural Nets", 2018, https://arxiv.org/abs/1712.09913
    """
    if count < 1:
        msg = f"Expected a count of 1 or more directions, got {count}. One makes a line, two a plane."
        raise ValueError(msg)
    norms, weights, layouts = filter_norms(module), weights_of(module), filter_layouts(module)
    generator = torch.Generator().manual_seed(seed)
    directions: list[Weights] = [{} for _ in range(count)]
    for name, layout in layouts.items():
        lengths = layout.rows(norms[name])
        drawn = torch.randn(count, *lengths.shape, generator=generator).to(lengths)
        for direction, unit in zip(directions, _orthonormal(drawn), strict=True):
            direction[name] = layout.weight(unit * lengths, weights[name])
    return directions


def _orthonormal(rows: Tensor) -> list[Tensor]:
    """Return rows (count, F, n) with length 1, each orthogonal to the same row of the earlier ones; 0 if none is."""
    found: list[Tensor] = []
    for drawn in rows:
        rest = drawn
        for unit in found + found:  # twice: one pass of Gram-Schmidt leaves rounding errors
            rest = rest - (rest * unit).sum(1, keepdim=True) * unit
        length = rest.norm(dim=1, keepdim=True)
        found.append(torch.where(length > PARALLEL * drawn.norm(dim=1, keepdim=True), rest / length, 0.0))
    return found


@dataclass(frozen=True)
class Trajectory:
    """The way of a training, in the plane in which it moved most.

    Attributes:
        directions: Orthogonal directions of length 1, by the names of the weights; the first one has the most variance.
        coordinates: Where each of the states is along the directions, the last state at 0, (states, directions).
        explained: Share of the states' variance that lies along each direction.
    """

    directions: list[Weights]
    coordinates: np.ndarray
    explained: np.ndarray


def trajectory_directions(states: Sequence[Mapping[str, Tensor]], count: int = 2) -> Trajectory:
    """Return the main directions of a training (PCA of its states), from its last state.

    Args:
        states: Weights by name as the training went on, the earliest first; more than ``count``. See
            :func:`weights_of`.
        count: Number of directions.

    Raises:
        ValueError: If there are too few states, or they do not differ in so many directions, or not in the same
            weights.

    Example:
        >>> states = [{"w": torch.tensor([3.0, 1.0])}, {"w": torch.tensor([1.0, 0.0])}, {"w": torch.zeros(2)}]
        >>> trajectory = trajectory_directions(states)
        >>> trajectory.coordinates.shape, round(float(trajectory.explained.sum()), 6)
        ((3, 2), 1.0)
    """
    if len(states) <= count:
        msg = f"Expected at least {count + 1} states for {count} directions, got {len(states)}. Save more checkpoints."
        raise ValueError(msg)
    last = states[-1]
    require_same_weights(last, *states)
    ways = torch.stack([flat(state).double() - flat(last).double() for state in states])
    centred = ways - ways.mean(0)
    variances, vectors = torch.linalg.eigh(centred @ centred.T)
    order = torch.arange(len(states) - 1, len(states) - 1 - count, -1)
    if variances[order[-1]] <= PARALLEL * variances[-1]:
        msg = f"Expected states that differ in {count} directions, got fewer. Give checkpoints that are further apart."
        raise ValueError(msg)
    axes = centred.T @ vectors[:, order] / variances[order].sqrt()
    return Trajectory(
        [unflat(axis, last) for axis in axes.T],
        (ways @ axes).cpu().numpy(),
        (variances[order] / variances.sum()).cpu().numpy(),
    )


def require_same_weights(expected: Mapping[str, Tensor], *others: Mapping[str, Tensor]) -> None:
    """Raise ValueError, naming the first difference, unless weights have the same names and shapes."""
    shapes = {name: tuple(weight.shape) for name, weight in expected.items()}
    for other in others:
        got = {name: tuple(weight.shape) for name, weight in other.items()}
        for name in {**shapes, **got}:
            if shapes.get(name) != got.get(name):
                msg = (
                    f"Expected weights of the same architecture, got {name} of shape {got.get(name, 'none')} instead "
                    f"of {shapes.get(name, 'none')}. Compare checkpoints of models with the same arguments."
                )
                raise ValueError(msg)


def flat(weights: Mapping[str, Tensor]) -> Tensor:
    """Return all weights in one row."""
    return torch.cat([weight.reshape(-1) for weight in weights.values()])


def unflat(row: Tensor, like: Mapping[str, Tensor]) -> Weights:
    """Return weights from one row, with the names, shapes and memory format of others."""
    parts = row.split([weight.numel() for weight in like.values()])
    return {
        name: torch.empty_like(weight).copy_(part.view(weight.shape))
        for (name, weight), part in zip(like.items(), parts, strict=True)
    }
