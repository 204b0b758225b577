"""Loss landscapes: losses around the weights of a module, drawn and in figures; any `nn.Module` will do."""

from .closure import Closure, closure_of, losses_at
from .directions import Trajectory, Weights, filter_norms, random_directions, trajectory_directions, weights_of
from .sharpness import Perturbed, Sharpness, log_ratio, sharpness
from .surface import Surface, grid, read_surface, surface

__all__ = [
    "Closure",
    "Perturbed",
    "Sharpness",
    "Surface",
    "Trajectory",
    "Weights",
    "closure_of",
    "filter_norms",
    "grid",
    "log_ratio",
    "losses_at",
    "random_directions",
    "read_surface",
    "sharpness",
    "surface",
    "trajectory_directions",
    "weights_of",
]
