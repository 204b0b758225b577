"""Draws photograph-like parts, good and with defects, with NumPy and OpenCV."""

import math
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[Any]
DRAWING_VERSION = 1  # raise it whenever the same arguments would give other pixels
DEFECT_AREA_RANGE = (0.0005, 0.1)  # smallest and largest fraction of the image that a defect covers
MIN_MEAN_CHANGE = 8.0  # inside a defect's mask, in grey levels of 255


class Scene(NamedTuple):
    """A drawn part, ``size`` pixels square; lengths are in image widths, from the image's centre.

    Args:
        image: Colours ``(3, size, size)``, about 0 to 1.
        part: Where the part is, ``(size, size)``, 1 on it and 0 beside it.
        beneath: The image without the pieces that can be missing.
        spots: ``(K, 3)``: x, y and radius of the pieces that can be missing.
    """

    image: Array
    part: Array
    beneath: Array
    spots: Array


# Tools


def _rng(*names: object) -> Generator:
    return np.random.default_rng([zlib.crc32(str(name).encode()) for name in names])


def _grid(size: int) -> tuple[Array, Array]:
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    return axis[None, :], axis[:, None]


def _pose(rng: Generator, size: int) -> tuple[Array, Array, Callable[[Array], Array]]:
    """Slightly shifted, turned and scaled coordinates of the part, and the way back from part to image."""
    dx, dy, turn, zoom = (rng.uniform(-v, v) for v in (0.02, 0.02, math.radians(3), 0.03))
    cos, sin = math.cos(turn), math.sin(turn)
    x, y = _grid(size)
    x, y = (x - dx) / (1 + zoom), (y - dy) / (1 + zoom)

    def to_image(points: Array) -> Array:
        return (1 + zoom) * points @ np.array([[cos, sin], [-sin, cos]]) + np.array([dx, dy])

    return cos * x + sin * y, cos * y - sin * x, to_image


def _noise(rng: Generator, size: int, rows: int, columns: int) -> Array:
    """Smooth noise with the given number of independent unit normal values down and across the image."""
    return cv2.resize(rng.standard_normal((rows, columns), dtype=np.float32), (size, size))


def _cover(distance: Array, size: int) -> Array:
    """Anti-aliased coverage of the region where a signed distance is negative."""
    return np.clip(0.5 - distance * size, 0, 1)


def _box(x: Array, y: Array, width: float, height: float) -> Array:
    """Signed distance to a box (largest of the coordinate distances); width and height are half-lengths."""
    return np.maximum(np.abs(x) - width, np.abs(y) - height)


def _tint(grey: Array, red: float, green: float, blue: float) -> Array:
    return np.stack([grey * red, grey * green, grey * blue])


def _blend(below: Array, above: Array, alpha: Array) -> Array:
    return below + alpha * (above - below)


def _light(rng: Generator) -> tuple[float, float]:
    """Direction towards the light source, at the upper left."""
    angle = math.radians(rng.uniform(195, 255))
    return math.cos(angle), math.sin(angle)


def _relief(height: Array, light: tuple[float, float], strength: float) -> Array:
    """Brightness factor of a surface lit from the side; 1 where it lies flat."""
    scale = height.shape[0] / 8
    gx, gy = cv2.Sobel(height, -1, 1, 0, scale=scale), cv2.Sobel(height, -1, 0, 1, scale=scale)
    return 1 - strength * (light[0] * gx + light[1] * gy) / np.sqrt(1 + gx * gx + gy * gy)


def _shadowed(image: Array, part: Array, light: tuple[float, float], offset: float) -> Array:
    """Darken the background by the part's soft shadow."""
    small = cv2.resize(part, (128, 128), interpolation=cv2.INTER_AREA)
    shift = np.array([[1, 0, -128 * offset * light[0]], [0, 1, -128 * offset * light[1]]], dtype=np.float32)
    soft = cv2.GaussianBlur(cv2.warpAffine(small, shift, (128, 128)), (0, 0), 128 * offset * 0.7)
    return image * (1 - 0.5 * cv2.resize(soft, part.shape))


def _blob(rng: Generator, size: int, x: float, y: float, radius: float, rough: float, stretch: float = 1.0) -> Array:
    """Coverage of an irregular closed outline around (x, y)."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    wave = sum((rng.normal() / k * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 8)), np.zeros(72))
    r, turn = radius * np.clip(1 + rough * wave, 0.4, 1.6), rng.uniform(0, np.pi)
    outline = (r * np.cos(angle) * stretch + 1j * r * np.sin(angle) / stretch) * np.exp(1j * turn) + complex(x, y)
    return _draw(cv2.fillPoly, size, outline)


def _draw(tool: Callable[..., Any], size: int, path: Array, *args: Any) -> Array:
    """Coverage of a path of complex points x + iy, by ``cv2.fillPoly`` or ``cv2.polylines``."""
    points = np.stack([path.real, path.imag], axis=1)
    canvas = np.zeros((size, size), np.uint8)
    tool(canvas, [((points + 0.5) * size * 16).astype(np.int32)], *args, color=255, lineType=cv2.LINE_AA, shift=4)
    return canvas.astype(np.float32) / 255


def _place(rng: Generator, part: Array) -> tuple[float, float]:
    """A random point on the part."""
    rows, columns = np.nonzero(part > 0.9)
    k = rng.integers(len(rows))
    return float(columns[k] + 0.5) / len(part) - 0.5, float(rows[k] + 0.5) / len(part) - 0.5


# Parts


def draw_washer(rng: Generator, size: int) -> Scene:
    """A turned metal ring with a hole, on a light table."""
    light = _light(rng)
    x, y, to_image = _pose(rng, size)
    d = np.sqrt(x * x + y * y)
    outside = np.maximum(d - 0.37, 0.16 - d)
    grooves = rng.standard_normal(500, dtype=np.float32)[(d * 499).astype(np.int32)]
    sheen = rng.uniform(0, np.pi)  # a turned surface reflects the light in two opposite sectors
    mirror = ((x * x - y * y) * math.cos(sheen) + 2 * x * y * math.sin(sheen)) / (d * d + 1e-4)
    metal = 0.54 + 0.09 * mirror + 0.02 * grooves + 0.02 * _noise(rng, size, 60, 60)
    metal += 0.02 * _noise(rng, size, size // 2, size // 2)
    metal *= _relief(0.02 * np.sqrt(np.clip(-outside / 0.018, 0, 1)), light, 0.55)
    part = _cover(outside, size)
    table = 0.76 + 0.012 * _noise(rng, size, 10, 10) + 0.015 * _noise(rng, size, size // 2, size // 2)
    table = _tint(_shadowed(table, part, light, 0.025), 0.97, 1.0, 1.03)
    image = _blend(table, _tint(metal, 1.0, 0.99, 0.96), part)
    angles = rng.uniform(0, 2 * np.pi, 16)
    rim = np.where(np.arange(16) % 3, 0.37, 0.16)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return Scene(image, part, table, np.column_stack([to_image(rim), rng.uniform(0.018, 0.055, 16)]))


def draw_connector(rng: Generator, size: int) -> Scene:
    """A dark plastic body with two rows of eight gilded pins in a recess."""
    light = _light(rng)
    x, y, to_image = _pose(rng, size)
    body = np.maximum(_box(x, y, 0.41, 0.19), (np.abs(x) + np.abs(y) - 0.58) * 0.7)  # chamfered corners
    body = np.maximum(body, -_box(x, y - 0.19, 0.06, 0.03))  # notch that marks the orientation
    recess = _box(x, y, 0.35, 0.13)
    grain = 1 + 0.05 * _noise(rng, size, size // 2, size // 2) + 0.04 * _noise(rng, size, 50, 50)
    height = 0.014 * np.clip(-body / 0.014, 0, 1) - 0.03 * np.clip(-recess / 0.014, 0, 1)
    plastic = (0.24 - 0.06 * _cover(recess, size)) * grain * _relief(height, light, 0.6)
    u = x - 0.08 * (np.clip(np.round(x / 0.08 - 0.5), -4, 3) + 0.5)
    v = np.abs(y) - 0.06
    pin = _box(u, v, 0.016, 0.016)
    plastic *= 1 - 0.55 * _cover(pin - 0.006, size)  # dark socket around each pin
    gold = 0.72 * _relief(0.012 * np.clip(-pin / 0.009, 0, 1), light, 0.7) + 0.02 * _noise(rng, size, 90, 90)
    part = _cover(body, size)
    table = 0.6 + 0.015 * _noise(rng, size, 8, 8) + 0.02 * _noise(rng, size, size // 2, size // 2)
    table = _tint(_shadowed(table, part, light, 0.03), 1.03, 1.0, 0.94)
    empty = _blend(table, _tint(plastic, 0.95, 1.0, 1.08), part)
    image = _blend(empty, _tint(gold, 1.0, 0.84, 0.52), _cover(pin, size))
    pins = np.array([(0.08 * (i + 0.5), side, 0.028) for i in range(-4, 4) for side in (-0.06, 0.06)])
    edge = rng.uniform(0.1, 0.4, 12) * rng.choice([-1, 1], 12)
    chips = np.column_stack([edge, rng.choice([-0.19, 0.19], 12), rng.uniform(0.016, 0.04, 12)])
    spots = np.concatenate([pins, chips])
    beneath = _blend(table, empty, _cover(recess, size))  # in the recess an empty socket, elsewhere the table
    return Scene(image, part, beneath, np.column_stack([to_image(spots[:, :2]), spots[:, 2]]))


def draw_fabric(rng: Generator, size: int) -> Scene:
    """A plain weave that fills the image, at a random phase."""
    x, y, _ = _pose(rng, size)
    threads = rng.uniform(27, 31)
    u = threads * (x + 1) + rng.uniform(0, 2) + 0.12 * _noise(rng, size, 7, 7)
    v = threads * (y + 1) + rng.uniform(0, 2) + 0.12 * _noise(rng, size, 7, 7)
    i, j = u.astype(np.int32), v.astype(np.int32)
    fu, fv = 2 * (u - i) - 1, 2 * (v - j) - 1  # position within the thread, -1 to 1
    warp_above = (i + j) % 2 == 0
    across, along = np.where(warp_above, fu, fv), np.where(warp_above, fv, fu)
    height = (1 - 0.75 * across**2) * (1 - 0.35 * along**2)
    tone = rng.normal(0, 0.035, (2, 64)).astype(np.float32)  # tone of each thread
    fibres = np.where(warp_above, _noise(rng, size, 60, size // 2), _noise(rng, size, size // 2, 60))
    yarn = np.where(warp_above, tone[0, i % 64], tone[1, j % 64])
    shade = (0.4 + 0.6 * height) * (1 + yarn + 0.07 * fibres + 0.04 * _noise(rng, size, 5, 5))
    image = np.where(warp_above, _tint(shade, 0.56, 0.61, 0.67), _tint(shade, 0.64, 0.65, 0.66))
    beneath = _tint(rng.uniform(0.12, 0.34) + 0.02 * _noise(rng, size, 60, 60), 1, 1, 1)
    spots = np.column_stack([rng.uniform(-0.44, 0.44, (8, 2)), rng.uniform(0.014, 0.04, 8)])
    return Scene(image, np.ones((size, size), np.float32), beneath, spots)


def draw_tablets(rng: Generator, size: int) -> Scene:
    """A tray crowded with freely placed two-coloured capsules."""
    light = _light(rng)
    x, y = _grid(size)
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
        over = _cover(0.004 - u, size)  # the cap covers a little more than half of the body
        end = np.maximum(np.abs(u) - half, 0)
        d = np.hypot(end, v) - 0.002 * over
        inside = _cover(d - radius, size)
        lit_side = 0.45 * radius * (1 if light[1] * cos > light[0] * sin else -1)
        height[rows, columns] += np.sqrt(np.maximum(radius**2 - d**2, 0))
        part[rows, columns] += inside
        gloss[rows, columns] += inside * np.exp(-(((v - lit_side) / 0.007) ** 2) - (end / 0.01) ** 2)
        cap[rows, columns] += inside * over
        red[:, rows, columns] += inside * (np.array([0.7, 0.24, 0.2]) + hue).astype(np.float32)[:, None, None]
        tip = complex(cx, cy) + rng.choice([-1, 1]) * (half + 0.9 * radius) * np.exp(1j * turn)
        spots.append((tip.real, tip.imag, rng.uniform(0.018, 0.04)))
    part = np.minimum(part, 1)
    lit = (0.72 + 5 * height + 0.02 * _noise(rng, size, size // 3, size // 3)) * _relief(height, light, 0.4)
    capsules = _blend(_tint(np.ones_like(part), 0.86, 0.8, 0.68), red, cap) * lit + 0.3 * gloss
    tray = 0.45 + 0.02 * _noise(rng, size, size, 40) + 0.02 * _noise(rng, size, 6, 6)
    tray = _tint(_shadowed(tray, part, light, 0.025), 0.82, 1.0, 1.08)
    return Scene(_blend(tray, capsules, part), part, tray, np.array(spots))


# Defects: each function returns the changed image and the defect's coverage


def draw_scratch(rng: Generator, scene: Scene) -> tuple[Array, Array]:
    """A thin curved line, brighter or darker than the part."""
    size = len(scene.part)
    turn, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.34)
    bend = turn + np.linspace(0, rng.uniform(-0.9, 0.9), 40) + 0.15 * np.cumsum(rng.normal(0, 0.25, 40))
    path = complex(*_place(rng, scene.part)) + np.cumsum(np.exp(1j * bend)) * length / 40
    thickness = max(1, round(size * rng.uniform(0.003, 0.008)))
    alpha = _draw(partial(cv2.polylines, thickness=thickness), size, path, False) * scene.part
    tone = rng.choice([-1, 1]) * rng.uniform(0.1, 0.36)
    depth = np.clip(1 + 0.3 * _noise(rng, size, 25, 25), 0.4, 1.4)  # varying depth along the scratch
    return scene.image + float(tone) * alpha * depth, alpha


def draw_dent(rng: Generator, scene: Scene) -> tuple[Array, Array]:
    """A shallow dent: dark on the side of the light, bright on the other."""
    size = len(scene.part)
    x, y = _place(rng, scene.part)
    radius, (lx, ly) = rng.uniform(0.025, 0.075), _light(rng)
    alpha = _blob(rng, size, x, y, radius, 0.12, rng.uniform(1, 1.4)) * scene.part
    gx, gy = _grid(size)
    hollow = np.exp(-((gx - x) ** 2 + (gy - y) ** 2) / (0.6 * radius**2))
    slope = ((gx - x) * lx + (gy - y) * ly) / radius
    factor = 1 - hollow * (rng.uniform(0.3, 1.4) * slope + rng.uniform(0, 0.15))
    shine = scene.image + 0.2  # dark parts reflect light too
    return scene.image + alpha * (factor - 1) * shine, alpha


def draw_contamination(rng: Generator, scene: Scene) -> tuple[Array, Array]:
    """A translucent stain or a scatter of particles in another colour."""
    size = len(scene.part)
    x, y = _place(rng, scene.part)
    colours = ((0.4, 0.24, 0.12), (0.12, 0.1, 0.09), (0.3, 0.42, 0.24), (0.88, 0.88, 0.84), (0.68, 0.58, 0.26))
    colour = _tint(np.ones_like(scene.part), *(colours[rng.integers(len(colours))] + rng.normal(0, 0.03, 3)).tolist())
    if rng.random() < 0.5:
        alpha = _blob(rng, size, x, y, rng.uniform(0.022, 0.07), 0.45, rng.uniform(1, 1.5)) * scene.part
        strength = rng.uniform(0.18, 0.6) * np.clip(1 + 0.25 * _noise(rng, size, 30, 30), 0.5, 1.5)
        return _blend(scene.image, colour, alpha * strength), alpha
    spread = rng.normal(0, rng.uniform(0.015, 0.05), (rng.integers(3, 14), 2))
    particles = [_blob(rng, size, x + dx, y + dy, rng.uniform(0.004, 0.011), 0.5) for dx, dy in spread]
    alpha = np.max(particles, axis=0) * scene.part
    return _blend(scene.image, colour, alpha * rng.uniform(0.4, 0.9)), alpha


def draw_missing(rng: Generator, scene: Scene) -> tuple[Array, Array]:
    """A chipped piece, a lost pin or a hole, which shows what is beneath."""
    size = len(scene.part)
    x, y, radius = scene.spots[rng.integers(len(scene.spots))].tolist()
    hole = _blob(rng, size, x, y, radius, 0.15)
    differs = (np.abs(scene.image - scene.beneath).max(axis=0) > 0.02).astype(np.float32)
    alpha = hole * cv2.morphologyEx(differs, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) * scene.part
    walls = 0.8 + 0.2 * cv2.GaussianBlur(hole, (0, 0), max(1.0, 0.25 * radius * size))  # shadow along the edge
    return _blend(scene.image, scene.beneath * walls, alpha), alpha


PARTS: dict[str, Callable[[Generator, int], Scene]] = {
    "washer": draw_washer,
    "connector": draw_connector,
    "fabric": draw_fabric,
    "tablets": draw_tablets,
}
DEFECTS: dict[str, Callable[[Generator, Scene], tuple[Array, Array]]] = {
    "scratch": draw_scratch,
    "dent": draw_dent,
    "contamination": draw_contamination,
    "missing": draw_missing,
}


# Photographs


def photograph(rng: Generator, image: Array) -> Array:
    """Light, blur and sample a scene drawn at twice the size; gives ``(H, W, 3)`` in grey levels, not yet rounded."""
    x, y = _grid(image.shape[1])
    angle, steep, bright = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.25), rng.uniform(0.87, 1.08)
    lamp = bright * (1 + steep * (math.cos(angle) * x + math.sin(angle) * y) - 0.25 * (x * x + y * y))
    cast = (1 + rng.normal(0, 0.01, 3)).tolist()
    seen = _sample(cv2.merge(list(image * _tint(lamp, *cast))), rng.uniform(0.6, 1.5))
    noise = rng.standard_normal(seen.shape, dtype=np.float32) * np.sqrt(0.2 + np.clip(seen, 0, 1))
    return 255 * np.clip(seen + rng.uniform(0.006, 0.013) * noise, 0, 1)


def _sample(image: Array, sigma: float) -> Array:
    size = len(image) // 2
    return cv2.resize(cv2.GaussianBlur(image, (0, 0), sigma), (size, size), interpolation=cv2.INTER_AREA)


def draw_good(category: str, split: str, index: int, drawing_seed: int = 0, image_size: int = 256) -> Array:
    """Draw one good part, RGB; it depends on these arguments alone."""
    key = (drawing_seed, category, split, "good", index, image_size)
    scene = PARTS[category](_rng(*key, "part"), 2 * image_size)
    return np.rint(photograph(_rng(*key, "camera"), scene.image)).astype(np.uint8)


def draw_defective(
    category: str, defect: str, index: int, drawing_seed: int = 0, image_size: int = 256
) -> tuple[Array, Array, Array]:
    """Draw one part without and with a defect.

    Returns:
        The clean image, the defective image and the mask (0 or 255). Outside the mask the two images are equal.
    """
    key = (drawing_seed, category, "test", defect, index, image_size)
    scene = PARTS[category](_rng(*key, "part"), 2 * image_size)
    clean = photograph(_rng(*key, "camera"), scene.image)
    rng = _rng(*key, "defect")
    for _ in range(1000):  # usually the first attempt is accepted
        damaged, alpha = DEFECTS[defect](rng, scene)
        change = photograph(_rng(*key, "camera"), damaged) - clean
        alpha = _sample(alpha, 1.0)
        mask = alpha > 0.2
        change *= np.clip((alpha - 0.2) / 0.2, 0, 1)[..., None]  # no change outside the mask
        low, high = DEFECT_AREA_RANGE
        if low <= mask.mean() <= high and np.abs(change).max(axis=2)[mask].mean() >= MIN_MEAN_CHANGE:
            break
    else:
        msg = f"Found no noticeable {defect} on {category} {index} at {image_size} pixels; try another drawing_seed."
        raise RuntimeError(msg)
    before, after = (np.rint(np.clip(image, 0, 255)).astype(np.uint8) for image in (clean, clean + change))
    return before, after, mask.astype(np.uint8) * 255
