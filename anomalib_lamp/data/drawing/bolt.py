"""A threaded bolt that lies freely turned on dusty ground, and the defects of its neck and thread."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.random import Generator

from .defects import draw_scratch
from .scene import Scene
from .tools import Array, blend, coordinates, cover, difference, light_direction, metallic, noise, shadowed, tint

# Along the axis, in image widths: the head, the neck, the thread and the point, and the radius there
_STATIONS = (-0.4, -0.39, -0.38, -0.3, -0.28, -0.07, -0.05, 0.33, 0.4)
_RADII = (0.128, 0.14, 0.138, 0.07, 0.064, 0.064, 0.055, 0.052, 0.003)
_NECK = (-0.28, -0.07)
_THREAD = (-0.045, 0.35)
_PITCH, _RIDGE = 0.042, 0.022  # distance of the turns and their height above the core

Reshape = Callable[[Array, Array, Array], Array]


@dataclass(frozen=True)
class BoltScene(Scene):
    """A bolt that can be drawn again with another shape.

    Args:
        neck: Where the shank without thread is, ``(size, size)``.
        redraw: Draws the same photograph after a change of the radius, which is given the coordinates ``u`` along
            the axis, ``v`` across it and the radius at each place, and returns the new radius.
    """

    neck: Array
    redraw: Callable[[Reshape], Array]


def draw_bolt(rng: Generator, size: int) -> BoltScene:
    """A countersunk bolt at any angle; the light comes from the upper left, and dust lies on the ground."""
    light = light_direction(rng)
    dx, dy, turn, zoom = rng.uniform([-0.03, -0.03, 0, 0.95], [0.03, 0.03, 2 * np.pi, 1.02]).tolist()
    x, y = coordinates(size)
    x, y, cos, sin = (x - dx) / zoom, (y - dy) / zoom, math.cos(turn), math.sin(turn)
    u, v = cos * x + sin * y, cos * y - sin * x
    ground = 0.68 + 0.02 * noise(rng, size, 6, 6) + 0.02 * noise(rng, size, size // 2, size // 2)
    ground = draw_dust(rng, ground)
    turned = rng.standard_normal(400, dtype=np.float32)[((u + 1) * 199).astype(np.int32)]  # marks of the lathe
    finish = 0.025 * turned + 0.02 * noise(rng, size, 50, 50) + 0.02 * noise(rng, size, size // 2, size // 2)
    radius = _radius(u, v, rng.uniform(0, 1))
    tone, rough = rng.uniform(0.85, 1.0), noise(rng, size, size // 6, size // 6)

    beyond = np.maximum(_STATIONS[0] - u, u - _STATIONS[-1])

    def silhouette(radius: Array) -> Array:
        return cover(zoom * np.maximum(np.abs(v) - radius, beyond), size)

    def redraw(reshape: Reshape) -> Array:
        changed = np.maximum(reshape(u, v, radius), 0)
        height = zoom * np.sqrt(np.maximum(changed**2 - v**2, 0))
        bare = np.clip((radius - changed) / 0.01, 0, 1)  # fresh metal is bright and rough
        metal = tone * metallic(cv2.GaussianBlur(height, (0, 0), size / 512), light) * (1 + finish)
        metal += bare * (0.14 + 0.16 * rough)
        part = silhouette(changed)
        below = tint(shadowed(ground, part, light, 0.022), 1.0, 0.99, 0.97)
        return blend(below, tint(metal, 0.98, 0.98, 1.0), part)

    part = silhouette(radius)
    neck = part * (u > _NECK[0]) * (u < _NECK[1])
    return BoltScene(redraw(lambda _u, _v, unchanged: unchanged), part, neck, redraw)


def _radius(u: Array, v: Array, phase: float) -> Array:
    """Radius of the bolt along its axis, with turns that lean as a helix does."""
    core = np.interp(u, _STATIONS, _RADII).astype(np.float32)
    turns = (u + 0.25 * _PITCH * np.clip(v / 0.07, -1, 1)) / _PITCH + phase
    ridge = 1 - 2 * np.abs(turns - np.floor(turns) - 0.5)  # 0 in the groove, 1 on the crest
    fade = np.clip((u - _THREAD[0]) / 0.02, 0, 1) * np.clip((_THREAD[1] - u) / 0.04, 0, 1)
    return core + _RIDGE * np.minimum(1.4 * ridge, 1) * fade


def draw_dust(rng: Generator, ground: Array) -> Array:
    """Specks and a few fibres, dark and bright, which good images have as well."""
    size = len(ground)
    dust = np.full((size, size), 128, np.uint8)
    for _ in range(int(np.exp(rng.uniform(math.log(5), math.log(90))))):
        place = (rng.uniform(0, size, 2) * 16).astype(int).tolist()
        radius, tone = size * 0.0045 * rng.uniform(0.2, 1) ** 2, 128 + rng.choice([-1, -1, 1]) * rng.uniform(12, 70)
        cv2.circle(dust, place, max(8, round(16 * radius)), tone, cv2.FILLED, cv2.LINE_AA, 4)
    for _ in range(rng.integers(0, 3)):
        bend = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.3, 16))
        steps = np.cumsum(np.stack([np.cos(bend), np.sin(bend)], axis=1), axis=0) * size * rng.uniform(0.002, 0.006)
        path = ((rng.uniform(0, size, 2) + steps) * 16).astype(np.int32)
        cv2.polylines(dust, [path], False, 128 + rng.choice([-1, 1]) * rng.uniform(12, 40), 1, cv2.LINE_AA, 4)
    return ground + (dust.astype(np.float32) - 128) / 255


def draw_neck_scratch(rng: Generator, scene: BoltScene) -> tuple[Array, Array]:
    """A thin line on the shank that has no thread."""
    return draw_scratch(rng, replace(scene, part=scene.neck))


def draw_flattened(rng: Generator, scene: BoltScene) -> tuple[Array, Array]:
    """Turns whose crests are worn or pressed flat, seen from above or at the side."""
    place, width = rng.uniform(0.0, 0.3), rng.uniform(0.025, 0.08)
    side, depth = rng.uniform(-0.9, 0.9), rng.uniform(0.5, 1.0)

    def flatten(u: Array, v: Array, radius: Array) -> Array:
        here = np.exp(-(((u - place) / width) ** 4) - ((v / 0.07 - side) / 0.7) ** 4)
        above = np.maximum(radius - np.interp(u, _STATIONS, _RADII).astype(np.float32) - 0.002, 0)
        return radius - depth * here * above

    image = scene.redraw(flatten)
    return image, difference(scene.image, image)


def draw_nicked(rng: Generator, scene: BoltScene) -> tuple[Array, Array]:
    """A notch that a blow has left at one side of the thread."""
    place, width = rng.uniform(0.0, 0.3), rng.uniform(0.012, 0.035)
    side, depth = rng.choice([-1, 1]), rng.uniform(0.02, 0.065)

    def nick(u: Array, v: Array, radius: Array) -> Array:
        return radius - depth * np.exp(-(((u - place) / width) ** 2)) / (1 + np.exp(-8 * (side * v / 0.07 - 0.4)))

    image = scene.redraw(nick)
    return image, difference(scene.image, image)
