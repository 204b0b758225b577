"""Draws photograph-like parts, good and with defects, with NumPy and OpenCV."""

from .catalogue import PARTS
from .photograph import DRAWING_VERSION, draw_defective, draw_good

__all__ = ["DRAWING_VERSION", "PARTS", "draw_defective", "draw_good"]
