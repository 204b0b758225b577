"""An inspector without a model: what it answers tells which photograph it was given."""

import time
import zlib

import numpy as np
from anomalib_lamp_runtime import Inspection, Region
from PIL import Image

SIDE = 16


def save_photograph(path, number, size=(SIDE, SIDE)):
    """Save a photograph whose colour is its number, below 65,536, so that no two are alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    draw_photograph(number, size).save(part, format="PNG")
    part.replace(path)
    return path


def draw_photograph(number, size=(SIDE, SIDE)):
    """Return the photograph of a number."""
    return Image.new("RGB", size, (number // 256, number % 256, 0))


def with_size(png, side):
    """Return the content of a PNG file with another width and height in its header, which is valid otherwise."""
    header = b"IHDR" + side.to_bytes(4, "big") * 2 + png[24:29]
    return png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]


def score_of(number):
    """Return the score that the inspector gives to a photograph."""
    return number / 65536


class FakeInspector:
    """Its score is the number of the photograph, divided by 65,536; brightness and sharpness are twice and thrice it.

    Args:
        seconds: How long an inspection takes.
    """

    threshold = 0.5

    def __init__(self, seconds=0.0):
        self.seconds, self.calls = seconds, 0

    def __call__(self, image):
        self.calls += 1
        time.sleep(self.seconds)
        red, green, _ = np.asarray(image)[0, 0]
        score = score_of(int(red) * 256 + int(green))
        anomalous = score > self.threshold
        regions = (Region(2, 3, 8, 9, 0.9),) if anomalous else ()
        return Inspection(
            score=score,
            raw_score=10 * score,
            threshold=self.threshold,
            anomalous=anomalous,
            anomaly_map=np.full((4, 4), score, np.float32),
            regions=regions,
            brightness=2 * score,
            sharpness=3 * score,
        )
