"""All parts with their defects, by name."""

from .defects import draw_contamination, draw_dent, draw_missing, draw_scratch
from .parts import draw_connector, draw_fabric, draw_tablets, draw_washer
from .scene import Defect, Part

_COMMON = {
    "scratch": Defect(draw_scratch),
    "dent": Defect(draw_dent),
    "contamination": Defect(draw_contamination),
    "missing": Defect(draw_missing),
}
PARTS = {
    "washer": Part(draw_washer, _COMMON),
    "connector": Part(draw_connector, _COMMON),
    "fabric": Part(draw_fabric, _COMMON),
    "tablets": Part(draw_tablets, _COMMON),
}
