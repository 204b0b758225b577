"""Draws anomaly maps over photographs."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from anomalib_lamp_runtime.regions import Region

COLOURS = {0.0: (0, 0, 128), 0.35: (0, 128, 255), 0.5: (128, 255, 128), 0.65: (255, 200, 0), 1.0: (200, 0, 0)}
BOX = (255, 255, 255)


def draw_heat_map(image: Image.Image, anomaly_map: np.ndarray, regions: Sequence[Region]) -> Image.Image:
    """Return a photograph, half covered by the colours of its map: blue is normal, red anomalous, 0.5 light green.

    Args:
        image: The photograph.
        anomaly_map: Map (h, w) in [0, 1].
        regions: Regions to draw boxes around.

    Returns:
        RGB picture of the photograph's size.

    Example:
        >>> draw_heat_map(Image.new("L", (60, 40)), np.zeros((4, 4), np.float32), regions=()).size
        (60, 40)
    """
    values = np.linspace(0, 1, 256)
    channels = np.transpose(list(COLOURS.values()))
    table = np.stack([np.interp(values, list(COLOURS), channel) for channel in channels], axis=1).astype(np.uint8)
    colours = Image.fromarray(table[(anomaly_map * 255).round().astype(np.uint8)])
    colours = colours.resize(image.size, Image.Resampling.BILINEAR)
    picture = Image.blend(image.convert("L").convert("RGB"), colours, 0.5)
    draw = ImageDraw.Draw(picture)
    width = max(1, round(max(image.size) / 400))
    for region in regions:
        draw.rectangle((region.left, region.top, region.right - 1, region.bottom - 1), outline=BOX, width=width)
    return picture
