"""Parts whose defects are those that any part can have: a washer, a connector, fabric and tablets."""

import math

import numpy as np
from numpy.random import Generator

from .scene import PiecesScene
from .tools import blend, box, coordinates, cover, light_direction, noise, pose, relief, shadowed, tint


def draw_washer(rng: Generator, size: int) -> PiecesScene:
    """A turned metal ring with a hole, on a light table."""
    light = light_direction(rng)
    x, y, to_image = pose(rng, size)
    d = np.sqrt(x * x + y * y)
    outside = np.maximum(d - 0.37, 0.16 - d)
    grooves = rng.standard_normal(500, dtype=np.float32)[(d * 499).astype(np.int32)]
    sheen = rng.uniform(0, np.pi)  # a turned surface reflects the light in two opposite sectors
    mirror = ((x * x - y * y) * math.cos(sheen) + 2 * x * y * math.sin(sheen)) / (d * d + 1e-4)
    metal = 0.54 + 0.09 * mirror + 0.02 * grooves + 0.02 * noise(rng, size, 60, 60)
    metal += 0.02 * noise(rng, size, size // 2, size // 2)
    metal *= relief(0.02 * np.sqrt(np.clip(-outside / 0.018, 0, 1)), light, 0.55)
    part = cover(outside, size)
    table = 0.76 + 0.012 * noise(rng, size, 10, 10) + 0.015 * noise(rng, size, size // 2, size // 2)
    table = tint(shadowed(table, part, light, 0.025), 0.97, 1.0, 1.03)
    image = blend(table, tint(metal, 1.0, 0.99, 0.96), part)
    angles = rng.uniform(0, 2 * np.pi, 16)
    rim = np.where(np.arange(16) % 3, 0.37, 0.16)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return PiecesScene(image, part, table, np.column_stack([to_image(rim), rng.uniform(0.018, 0.055, 16)]))


def draw_connector(rng: Generator, size: int) -> PiecesScene:
    """A dark plastic body with two rows of eight gilded pins in a recess."""
    light = light_direction(rng)
    x, y, to_image = pose(rng, size)
    body = np.maximum(box(x, y, 0.41, 0.19), (np.abs(x) + np.abs(y) - 0.58) * 0.7)  # chamfered corners
    body = np.maximum(body, -box(x, y - 0.19, 0.06, 0.03))  # notch that marks the orientation
    recess = box(x, y, 0.35, 0.13)
    grain = 1 + 0.05 * noise(rng, size, size // 2, size // 2) + 0.04 * noise(rng, size, 50, 50)
    height = 0.014 * np.clip(-body / 0.014, 0, 1) - 0.03 * np.clip(-recess / 0.014, 0, 1)
    plastic = (0.24 - 0.06 * cover(recess, size)) * grain * relief(height, light, 0.6)
    u = x - 0.08 * (np.clip(np.round(x / 0.08 - 0.5), -4, 3) + 0.5)
    v = np.abs(y) - 0.06
    pin = box(u, v, 0.016, 0.016)
    plastic *= 1 - 0.55 * cover(pin - 0.006, size)  # dark socket around each pin
    gold = 0.72 * relief(0.012 * np.clip(-pin / 0.009, 0, 1), light, 0.7) + 0.02 * noise(rng, size, 90, 90)
    part = cover(body, size)
    table = 0.6 + 0.015 * noise(rng, size, 8, 8) + 0.02 * noise(rng, size, size // 2, size // 2)
    table = tint(shadowed(table, part, light, 0.03), 1.03, 1.0, 0.94)
    empty = blend(table, tint(plastic, 0.95, 1.0, 1.08), part)
    image = blend(empty, tint(gold, 1.0, 0.84, 0.52), cover(pin, size))
    pins = np.array([(0.08 * (i + 0.5), side, 0.028) for i in range(-4, 4) for side in (-0.06, 0.06)])
    edge = rng.uniform(0.1, 0.4, 12) * rng.choice([-1, 1], 12)
    chips = np.column_stack([edge, rng.choice([-0.19, 0.19], 12), rng.uniform(0.016, 0.04, 12)])
    spots = np.concatenate([pins, chips])
    beneath = blend(table, empty, cover(recess, size))  # in the recess an empty socket, elsewhere the table
    return PiecesScene(image, part, beneath, np.column_stack([to_image(spots[:, :2]), spots[:, 2]]))


def draw_fabric(rng: Generator, size: int) -> PiecesScene:
    """A plain weave that fills the image, at a random phase."""
    x, y, _ = pose(rng, size)
    threads = rng.uniform(27, 31)
    u = threads * (x + 1) + rng.uniform(0, 2) + 0.12 * noise(rng, size, 7, 7)
    v = threads * (y + 1) + rng.uniform(0, 2) + 0.12 * noise(rng, size, 7, 7)
    i, j = u.astype(np.int32), v.astype(np.int32)
    fu, fv = 2 * (u - i) - 1, 2 * (v - j) - 1  # position within the thread, -1 to 1
    warp_above = (i + j) % 2 == 0
    across, along = np.where(warp_above, fu, fv), np.where(warp_above, fv, fu)
    height = (1 - 0.75 * across**2) * (1 - 0.35 * along**2)
    tone = rng.normal(0, 0.035, (2, 64)).astype(np.float32)  # tone of each thread
    fibres = np.where(warp_above, noise(rng, size, 60, size // 2), noise(rng, size, size // 2, 60))
    yarn = np.where(warp_above, tone[0, i % 64], tone[1, j % 64])
    shade = (0.4 + 0.6 * height) * (1 + yarn + 0.07 * fibres + 0.04 * noise(rng, size, 5, 5))
    image = np.where(warp_above, tint(shade, 0.56, 0.61, 0.67), tint(shade, 0.64, 0.65, 0.66))
    beneath = tint(rng.uniform(0.12, 0.34) + 0.02 * noise(rng, size, 60, 60), 1, 1, 1)
    spots = np.column_stack([rng.uniform(-0.44, 0.44, (8, 2)), rng.uniform(0.014, 0.04, 8)])
    return PiecesScene(image, np.ones((size, size), np.float32), beneath, spots)


def draw_tablets(rng: Generator, size: int) -> PiecesScene:
    """A tray crowded with freely placed two-coloured capsules."""
    light = light_direction(rng)
    x, y = coordinates(size)
    half, radius, steps = 0.065, 0.052, np.linspace(-1, 1, 7)
    axes, poses = np.empty(0, complex), []
    for _ in range(250):  # placed one by one; a capsule that would touch another is left out
        cx, cy, turn = rng.uniform([-0.38, -0.38, 0], [0.38, 0.38, 2 * np.pi]).tolist()
        axis = complex(cx, cy) + half * steps * np.exp(1j * turn)
        if np.all(np.abs(axis[:, None] - axes) > 2.15 * radius):
            axes = np.concatenate([axes, axis])
            poses.append((cx, cy, turn))
    height, part, gloss, cap = np.zeros((4, size, size), np.float32)
    spots, red, shift = [], np.zeros((3, size, size), np.float32), rng.normal(0, 0.02, (len(poses), 3))
    for (cx, cy, turn), hue in zip(poses, shift, strict=True):
        cos, sin, reach = math.cos(turn), math.sin(turn), half + radius + 0.01
        rows, columns = (slice(max(0, int((c + 0.5 - reach) * size)), int((c + 0.5 + reach) * size)) for c in (cy, cx))
        u = (x[:, columns] - cx) * cos + (y[rows] - cy) * sin
        v = (y[rows] - cy) * cos - (x[:, columns] - cx) * sin
        over = cover(0.004 - u, size)  # the cap covers a little more than half of the body
        end = np.maximum(np.abs(u) - half, 0)
        d = np.hypot(end, v) - 0.002 * over
        inside = cover(d - radius, size)
        lit_side = 0.45 * radius * (1 if light[1] * cos > light[0] * sin else -1)
        height[rows, columns] += np.sqrt(np.maximum(radius**2 - d**2, 0))
        part[rows, columns] += inside
        gloss[rows, columns] += inside * np.exp(-(((v - lit_side) / 0.007) ** 2) - (end / 0.01) ** 2)
        cap[rows, columns] += inside * over
        red[:, rows, columns] += inside * (np.array([0.7, 0.24, 0.2]) + hue).astype(np.float32)[:, None, None]
        tip = complex(cx, cy) + rng.choice([-1, 1]) * (half + 0.9 * radius) * np.exp(1j * turn)
        spots.append((tip.real, tip.imag, rng.uniform(0.018, 0.04)))
    part = np.minimum(part, 1)
    lit = (0.72 + 5 * height + 0.02 * noise(rng, size, size // 3, size // 3)) * relief(height, light, 0.4)
    capsules = blend(tint(np.ones_like(part), 0.86, 0.8, 0.68), red, cap) * lit + 0.3 * gloss
    tray = 0.45 + 0.02 * noise(rng, size, size, 40) + 0.02 * noise(rng, size, 6, 6)
    tray = tint(shadowed(tray, part, light, 0.025), 0.82, 1.0, 1.08)
    return PiecesScene(blend(tray, capsules, part), part, tray, np.array(spots))
