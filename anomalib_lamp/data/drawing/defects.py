"""Defects that any part can have; each function returns the changed image and the defect's coverage."""

from functools import partial

import cv2
import numpy as np
from numpy.random import Generator

from .scene import PiecesScene, Scene
from .tools import Array, blend, blob, coordinates, draw_path, light_direction, noise, place_on, tint


def draw_scratch(rng: Generator, scene: Scene, directions: tuple[float, float] = (0, 2 * np.pi)) -> tuple[Array, Array]:
    """A thin curved line, brighter or darker than the part, that starts in a direction of the given range."""
    size = len(scene.part)
    turn, length = rng.uniform(*directions), rng.uniform(0.1, 0.34)
    bend = turn + np.linspace(0, rng.uniform(-0.9, 0.9), 40) + 0.15 * np.cumsum(rng.normal(0, 0.25, 40))
    path = complex(*place_on(rng, scene.part)) + np.cumsum(np.exp(1j * bend)) * length / 40
    thickness = max(1, round(size * rng.uniform(0.003, 0.008)))
    alpha = draw_path(partial(cv2.polylines, thickness=thickness), size, path, False) * scene.part
    tone = rng.choice([-1, 1]) * rng.uniform(0.1, 0.36)
    depth = np.clip(1 + 0.3 * noise(rng, size, 25, 25), 0.4, 1.4)  # varying depth along the scratch
    return scene.image + float(tone) * alpha * depth, alpha


def draw_dent(rng: Generator, scene: Scene, depths: tuple[float, float] = (0.3, 1.4)) -> tuple[Array, Array]:
    """A shallow dent: dark on the side of the light, bright on the other; the depth is drawn from the given range."""
    size = len(scene.part)
    x, y = place_on(rng, scene.part)
    radius, (lx, ly) = rng.uniform(0.025, 0.075), light_direction(rng)
    alpha = blob(rng, size, x, y, radius, 0.12, rng.uniform(1, 1.4)) * scene.part
    gx, gy = coordinates(size)
    hollow = np.exp(-((gx - x) ** 2 + (gy - y) ** 2) / (0.6 * radius**2))
    slope = ((gx - x) * lx + (gy - y) * ly) / radius
    factor = 1 - hollow * (rng.uniform(*depths) * slope + rng.uniform(0, 0.15))
    shine = scene.image + 0.2  # dark parts reflect light too
    return scene.image + alpha * (factor - 1) * shine, alpha


def draw_contamination(rng: Generator, scene: Scene) -> tuple[Array, Array]:
    """A translucent stain or a scatter of particles in another colour."""
    size = len(scene.part)
    x, y = place_on(rng, scene.part)
    colours = ((0.4, 0.24, 0.12), (0.12, 0.1, 0.09), (0.3, 0.42, 0.24), (0.88, 0.88, 0.84), (0.68, 0.58, 0.26))
    colour = tint(np.ones_like(scene.part), *(colours[rng.integers(len(colours))] + rng.normal(0, 0.03, 3)).tolist())
    if rng.random() < 0.5:
        alpha = blob(rng, size, x, y, rng.uniform(0.022, 0.07), 0.45, rng.uniform(1, 1.5)) * scene.part
        strength = rng.uniform(0.18, 0.6) * np.clip(1 + 0.25 * noise(rng, size, 30, 30), 0.5, 1.5)
        return blend(scene.image, colour, alpha * strength), alpha
    spread = rng.normal(0, rng.uniform(0.015, 0.05), (rng.integers(3, 14), 2))
    particles = [blob(rng, size, x + dx, y + dy, rng.uniform(0.004, 0.011), 0.5) for dx, dy in spread]
    alpha = np.max(particles, axis=0) * scene.part
    return blend(scene.image, colour, alpha * rng.uniform(0.4, 0.9)), alpha


def draw_missing(rng: Generator, scene: PiecesScene) -> tuple[Array, Array]:
    """A chipped piece, a lost pin or a hole, which shows what is beneath."""
    size = len(scene.part)
    x, y, radius = scene.spots[rng.integers(len(scene.spots))].tolist()
    hole = blob(rng, size, x, y, radius, 0.15)
    differs = (np.abs(scene.image - scene.beneath).max(axis=0) > 0.02).astype(np.float32)
    alpha = hole * cv2.morphologyEx(differs, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) * scene.part
    walls = 0.8 + 0.2 * cv2.GaussianBlur(hole, (0, 0), max(1.0, 0.25 * radius * size))  # shadow along the edge
    return blend(scene.image, scene.beneath * walls, alpha), alpha
