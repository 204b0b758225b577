"""Brushed steel that fills the image, with marks that good steel has as well, and its rust."""

import math
from functools import partial

import cv2
import numpy as np
from numpy.random import Generator

from .defects import draw_dent, draw_scratch
from .scene import Scene
from .tools import Array, blend, blob, draw_path, noise, place_on, tint

_BRUSHING = ((0.025, 2), (0.03, 8), (0.03, 30))  # strength of the brushing lines and their number along a row


def draw_steel(rng: Generator, size: int) -> Scene:
    """A sheet brushed from left to right, with single deeper lines, smears and small pits."""
    rows = size // 2
    brushing = np.sum([weight * noise(rng, size, rows, columns) for weight, columns in _BRUSHING], axis=0)
    sheen = 0.03 * noise(rng, size, 3, 2) + 0.02 * noise(rng, size, 14, 1)
    steel = 0.56 + rng.uniform(0.5, 1.8) * brushing + sheen + 0.012 * noise(rng, size, rows, rows)
    for _ in range(rng.integers(0, 14)):
        steel += _line(rng, size)
    for _ in range(rng.integers(0, 30)):
        steel -= _pit(rng, size)
    image = tint(steel, 0.97, 0.99, 1.02)
    for _ in range(rng.integers(0, 6)):
        warm = rng.uniform(-0.4, 0.4)  # from bluish to straw
        image = image + tint(_smear(rng, size), 1 + warm, 1.0, 1 - warm)
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), rng.uniform(-3, 3), 1.06)
    turned = [cv2.warpAffine(channel, turn, (size, size), borderMode=cv2.BORDER_REFLECT) for channel in image]
    return Scene(np.stack(turned), np.ones((size, size), np.float32))


def _line(rng: Generator, size: int) -> Array:
    """A brushing line that is deeper than the others, now and then a little askew."""
    start = complex(*rng.uniform(-0.5, 0.5, 2))
    askew = rng.normal(0, rng.choice([0.02, 0.2], p=[0.7, 0.3]))
    path = np.array([start, start + rng.uniform(0.05, 0.5) * np.exp(1j * askew)])
    thickness = max(1, round(size * rng.uniform(0.001, 0.005)))
    tone = rng.choice([-1, 1]) * rng.uniform(0.03, 0.24)
    return tone * draw_path(partial(cv2.polylines, thickness=thickness), size, path, False)


def _smear(rng: Generator, size: int) -> Array:
    """A faint cloud."""
    x, y = rng.uniform(-0.5, 0.5, 2)
    edge = rng.uniform(0.004, 0.015)
    soft = cv2.GaussianBlur(blob(rng, size, x, y, rng.uniform(0.02, 0.08), 0.45, 1.5), (0, 0), size * edge)
    return rng.choice([-1, 1]) * rng.uniform(0.03, 0.13) * soft


def _pit(rng: Generator, size: int) -> Array:
    """A small dark hole."""
    x, y = rng.uniform(-0.5, 0.5, 2)
    return rng.uniform(0.05, 0.4) * blob(rng, size, x, y, 0.0015 + 0.008 * rng.random() ** 2, 0.3)


def draw_cross_scratch(rng: Generator, scene: Scene) -> tuple[Array, Array]:
    """A scratch that crosses the brushing."""
    return draw_scratch(rng, scene, (0.2 * math.pi, 0.8 * math.pi))


def draw_shallow_dent(rng: Generator, scene: Scene) -> tuple[Array, Array]:
    """A dent that is shallow, as in a stiff sheet."""
    return draw_dent(rng, scene, (0.15, 1.0))


def draw_rust(rng: Generator, scene: Scene) -> tuple[Array, Array]:
    """A patch of orange and brown grains, denser in its middle, or a few spots beside each other."""
    size = len(scene.part)
    x, y = place_on(rng, scene.part)
    spread = rng.uniform(0.0, 0.06)
    spots = [(*rng.normal((x, y), spread).tolist(), rng.uniform(0.007, 0.04)) for _ in range(rng.integers(1, 5))]
    patch = np.max([blob(rng, size, u, v, r, 0.45, rng.uniform(1, 1.4)) for u, v, r in spots], axis=0)
    grains = 0.5 * noise(rng, size, size // 4, size // 4) + 0.5 * noise(rng, size, size // 12, size // 12)
    colour = blend(tint(np.ones_like(patch), 0.3, 0.17, 0.1), tint(np.ones_like(patch), 0.66, 0.38, 0.18), 0.5 + grains)
    soft = cv2.GaussianBlur(patch, (0, 0), size * 0.006)
    strength = rng.uniform(0.08, 0.7) * np.clip(0.9 + 0.5 * grains, 0.2, 1)
    return blend(scene.image, colour, soft * strength), soft
