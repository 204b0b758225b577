"""Tools for drawing with arrays: coordinates, noise, outlines and light."""

import math
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[Any]


def seeded(*names: object) -> Generator:
    """A generator of random numbers that depends on the names alone."""
    return np.random.default_rng([zlib.crc32(str(name).encode()) for name in names])


def coordinates(size: int) -> tuple[Array, Array]:
    """The x of each column ``(1, size)`` and the y of each row ``(size, 1)``, -0.5 to 0.5."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    return axis[None, :], axis[:, None]


def pose(rng: Generator, size: int, play: float = 1.0) -> tuple[Array, Array, Callable[[Array], Array]]:
    """Slightly shifted, turned and scaled coordinates of the part, and the way back from part to image.

    With a ``play`` of 1 the shift is at most 0.02, the turn 3 degrees and the scale 3 % to either side.
    """
    dx, dy, turn, zoom = (rng.uniform(-v * play, v * play) for v in (0.02, 0.02, math.radians(3), 0.03))
    cos, sin = math.cos(turn), math.sin(turn)
    x, y = coordinates(size)
    x, y = (x - dx) / (1 + zoom), (y - dy) / (1 + zoom)

    def to_image(points: Array) -> Array:
        return (1 + zoom) * points @ np.array([[cos, sin], [-sin, cos]]) + np.array([dx, dy])

    return cos * x + sin * y, cos * y - sin * x, to_image


def noise(rng: Generator, size: int, rows: int, columns: int) -> Array:
    """Smooth noise with the given number of independent unit normal values down and across the image."""
    return cv2.resize(rng.standard_normal((rows, columns), dtype=np.float32), (size, size))


def cover(distance: Array, size: int) -> Array:
    """Anti-aliased coverage of the region where a signed distance is negative."""
    return np.clip(0.5 - distance * size, 0, 1)


def box(x: Array, y: Array, width: float, height: float) -> Array:
    """Signed distance to a box (largest of the coordinate distances); width and height are half-lengths."""
    return np.maximum(np.abs(x) - width, np.abs(y) - height)


def tint(grey: Array, red: float, green: float, blue: float) -> Array:
    """Colours ``(3, H, W)`` of a grey image ``(H, W)`` seen through a filter."""
    return np.stack([grey * red, grey * green, grey * blue])


def blend(below: Array, above: Array, alpha: Array) -> Array:
    """Cover one image by another where alpha is 1."""
    return below + alpha * (above - below)


def light_direction(rng: Generator) -> tuple[float, float]:
    """Direction towards the light source, at the upper left."""
    angle = math.radians(rng.uniform(195, 255))
    return math.cos(angle), math.sin(angle)


def _slopes(height: Array) -> tuple[Array, Array]:
    scale = len(height) / 8
    return cv2.Sobel(height, -1, 1, 0, scale=scale), cv2.Sobel(height, -1, 0, 1, scale=scale)


def relief(height: Array, light: tuple[float, float], strength: float) -> Array:
    """Brightness factor of a surface lit from the side; 1 where it lies flat."""
    gx, gy = _slopes(height)
    return 1 - strength * (light[0] * gx + light[1] * gy) / np.sqrt(1 + gx * gx + gy * gy)


def shadowed(image: Array, part: Array, light: tuple[float, float], offset: float) -> Array:
    """Darken the background by the part's soft shadow."""
    small = cv2.resize(part, (128, 128), interpolation=cv2.INTER_AREA)
    shift = np.array([[1, 0, -128 * offset * light[0]], [0, 1, -128 * offset * light[1]]], dtype=np.float32)
    soft = cv2.GaussianBlur(cv2.warpAffine(small, shift, (128, 128)), (0, 0), 128 * offset * 0.7)
    return image * (1 - 0.5 * cv2.resize(soft, part.shape))


def blob(rng: Generator, size: int, x: float, y: float, radius: float, rough: float, stretch: float = 1.0) -> Array:
    """Coverage of an irregular closed outline around (x, y)."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    wave = sum((rng.normal() / k * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 8)), np.zeros(72))
    r, turn = radius * np.clip(1 + rough * wave, 0.4, 1.6), rng.uniform(0, np.pi)
    outline = (r * np.cos(angle) * stretch + 1j * r * np.sin(angle) / stretch) * np.exp(1j * turn) + complex(x, y)
    return draw_path(cv2.fillPoly, size, outline)


def draw_path(tool: Callable[..., Any], size: int, path: Array, *args: Any) -> Array:
    """Coverage of a path of complex points x + iy, by ``cv2.fillPoly`` or ``cv2.polylines``."""
    points = np.stack([path.real, path.imag], axis=1)
    canvas = np.zeros((size, size), np.uint8)
    tool(canvas, [((points + 0.5) * size * 16).astype(np.int32)], *args, color=255, lineType=cv2.LINE_AA, shift=4)
    return canvas.astype(np.float32) / 255


def place_on(rng: Generator, part: Array) -> tuple[float, float]:
    """A random point on the part."""
    rows, columns = np.nonzero(part > 0.9)
    k = rng.integers(len(rows))
    return float(columns[k] + 0.5) / len(part) - 0.5, float(rows[k] + 0.5) / len(part) - 0.5


def metallic(height: Array, light: tuple[float, float]) -> Array:
    """Brightness of a polished surface lit from the side: a highlight towards the light, a dark band away from it."""
    gx, gy = _slopes(height)
    upward = 1 / np.sqrt(1 + gx * gx + gy * gy)
    facing = -(light[0] * gx + light[1] * gy) * upward  # -1 away from the light, 1 towards it
    highlight = np.exp(-(((facing - 0.55) / 0.2) ** 2)) - 0.45 * np.exp(-(((facing + 0.35) / 0.25) ** 2))
    return 0.36 + 0.16 * upward + 0.22 * facing + 0.4 * highlight


def difference(before: Array, after: Array) -> Array:
    """Coverage of where two drawings differ, without gaps inside."""
    differs = (np.abs(before - after).max(axis=0) > 0.02).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    outlines, _ = cv2.findContours(
        cv2.morphologyEx(differs, cv2.MORPH_CLOSE, kernel), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    return cv2.drawContours(differs, outlines, -1, 1, cv2.FILLED).astype(np.float32)
