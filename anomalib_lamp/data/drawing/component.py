"""A transistor with three leads above a perforated board, and defects of its leads and its place."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import cv2
import numpy as np
from numpy.random import Generator

from .scene import Scene
from .tools import (
    Array,
    blend,
    cover,
    difference,
    draw_path,
    light_direction,
    metallic,
    noise,
    pose,
    relief,
    shadowed,
    tint,
)

_PITCH = 0.0575  # distance of the board's holes, in image widths
_HOLE_ROW = 0.3275  # y of the holes that take the leads
_THICKNESS = 0.028  # of a lead
_BODY = -0.19j  # x + iy of the body's centre
_LEADS = [  # x + iy from the body to the hole
    np.array([inner - 0.1j, inner + 0.03j, 2 * _PITCH * k + 0.1j, 2 * _PITCH * k + _HOLE_ROW * 1j])
    for k, inner in ((-1, -0.075), (0, 0.0), (1, 0.075))
]


class Redraw(Protocol):
    """Draws the same photograph with other leads or another place of the component."""

    def __call__(self, leads: Sequence[Array], turn: float = 0.0, shift: complex = 0.0) -> Array:
        """Draw the image ``(3, size, size)``.

        Args:
            leads: Paths ``x + iy`` from the body to the holes.
            turn: Angle about the body's centre, in radians.
            shift: Way ``x + iy`` by which the component has moved, in image widths.
        """


@dataclass(frozen=True)
class ComponentScene(Scene):
    """A component that can be drawn again with other leads or at another place.

    Args:
        board: The image without the component.
        leads: Paths ``x + iy`` of the good leads from the body to the holes.
        redraw: Draws the same photograph with a flaw.
    """

    board: Array
    leads: list[Array]
    redraw: Redraw


def draw_component(rng: Generator, size: int) -> ComponentScene:
    """A black transistor that lies almost alike in every image, its three leads in holes of a board."""
    light = light_direction(rng)
    x, y, to_image = pose(rng, size, play=0.5)
    board = _draw_board(rng, x, y, light)
    leads = [path + np.array([0, *rng.normal(0, 0.003, 2), 0]) for path in _LEADS]
    black, mould = rng.uniform(0.13, 0.19), _draw_mould(rng)
    tarnish = 1 + 0.05 * noise(rng, size, 60, 60) + 0.04 * noise(rng, size, size // 2, size // 2)
    seat = np.hypot(x - 2 * _PITCH * np.clip(np.rint(x / (2 * _PITCH)), -1, 1), y - _HOLE_ROW)
    sunk = np.clip(seat / 0.02, 0.35, 1)  # the ends of the leads lie in the shade of their holes

    def redraw(leads: Sequence[Array], turn: float = 0.0, shift: complex = 0.0) -> Array:
        placed = [(path - _BODY) * np.exp(1j * turn) + _BODY + shift for path in leads]
        wires = _draw_wires([to_image(np.column_stack([path.real, path.imag])) for path in placed], size)
        cos, sin, dx, dy = math.cos(turn), math.sin(turn), x - shift.real, y - (_BODY + shift).imag
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        edge = np.hypot(np.maximum(np.abs(u) - 0.12, 0), np.maximum(np.abs(v) - 0.095, 0)) - 0.025
        body = cover(edge, size)
        height = 0.035 * np.sqrt(np.clip(-edge / 0.03, 0, 1)) - 0.006 * cover(np.hypot(u, v + 0.065) - 0.018, size)
        across, down = ((128 * (axis / 0.3 + 0.5)).astype(np.float32) for axis in (u, v))
        epoxy = (black + cv2.remap(mould, across, down, cv2.INTER_LINEAR)) * relief(height, light, 0.85)
        tin = (0.1 + metallic(_roundness(wires), light)) * tarnish * sunk
        image = blend(shadowed(board, np.maximum(wires, body), light, 0.025), tint(tin, 1.0, 0.99, 0.96), wires)
        return blend(image, tint(epoxy, 1.0, 1.0, 1.03), body)

    return ComponentScene(redraw(leads), np.ones((size, size), np.float32), board, leads, redraw)


def _draw_board(rng: Generator, x: Array, y: Array, light: tuple[float, float]) -> Array:
    """A board of pressed paper with rows of holes."""
    size = len(x)
    paper = 0.62 + 0.025 * noise(rng, size, 8, 8) + 0.02 * noise(rng, size, size // 2, 60)
    paper += 0.02 * noise(rng, size, size // 2, size // 2)
    u, v = (axis - _PITCH * np.rint(axis / _PITCH) for axis in (x, y - _HOLE_ROW))
    hole = np.hypot(u, v) - 0.0155
    paper *= relief(-0.01 * np.clip(-hole / 0.006 + 0.5, 0, 1), light, 0.35)
    inside = 0.13 + 0.05 * noise(rng, size, 40, 40)
    return blend(tint(paper, 1.0, 0.8, 0.56), tint(inside, 1.0, 0.9, 0.8), cover(hole, size))


def _draw_mould(rng: Generator) -> Array:
    """What the surface of the body adds to its grey, 128 pixels square: grain and a printed type."""
    print_ = np.zeros((128, 128), np.uint8)
    for text, row in (("Q 204", 72), ("K24", 92)):
        cv2.putText(print_, text, (32, row), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1, cv2.LINE_AA)
    grain = 0.012 * noise(rng, 128, 128, 128) + 0.008 * noise(rng, 128, 12, 12)
    return grain + rng.uniform(0.1, 0.25) * print_.astype(np.float32) / 255


def _draw_wires(paths: Sequence[Array], size: int) -> Array:
    """Coverage of the leads, whose paths ``(N, 2)`` hold x and y."""
    tool = partial(cv2.polylines, thickness=max(1, round(_THICKNESS * size)))
    lines = [draw_path(tool, size, path[:, 0] + 1j * path[:, 1], False) for path in paths]
    return np.max(lines, axis=0)


def _roundness(wires: Array) -> Array:
    """Height of round wires above their middle, in image widths."""
    inside = cv2.distanceTransform((wires > 0.5).astype(np.uint8), cv2.DIST_L2, 5) / len(wires)
    height = np.sqrt(np.clip(inside * (_THICKNESS - inside), 0, None))
    return cv2.GaussianBlur(height, (0, 0), 0.003 * len(wires))


def draw_cut(rng: Generator, scene: ComponentScene) -> tuple[Array, Array]:
    """A lead that ends before its hole."""
    k, kept = int(rng.integers(3)), rng.uniform(0.35, 0.95)
    path = scene.leads[k]
    way = np.concatenate([[0], np.cumsum(np.abs(np.diff(path)))])
    end = np.interp(kept * way[-1], way, path.real) + 1j * np.interp(kept * way[-1], way, path.imag)
    return _with_lead(scene, k, np.append(path[way < kept * way[-1]], end))


def draw_bent(rng: Generator, scene: ComponentScene) -> tuple[Array, Array]:
    """A lead whose end stands beside its hole."""
    k, side = int(rng.integers(3)), rng.choice([-1, 1])
    away = side * rng.uniform(0.007, 0.08) - 1j * rng.uniform(0.0, 0.03)
    return _with_lead(scene, k, scene.leads[k] + away * np.array([0, 0, rng.uniform(0.1, 0.5), 1]))


def _with_lead(scene: ComponentScene, k: int, path: Array) -> tuple[Array, Array]:
    image = scene.redraw([*scene.leads[:k], path, *scene.leads[k + 1 :]])
    return image, difference(scene.image, image)


def draw_turned(rng: Generator, scene: ComponentScene) -> tuple[Array, Array]:
    """A component that lies askew, its leads out of their holes."""
    turn = rng.choice([-1, 1]) * math.radians(rng.uniform(4, 45))
    image = scene.redraw(scene.leads, turn, complex(*rng.uniform(-0.04, 0.04, 2)))
    return image, difference(scene.image, image)


def draw_absent(_rng: Generator, scene: ComponentScene) -> tuple[Array, Array]:
    """The board without the component."""
    return scene.board, difference(scene.image, scene.board)
