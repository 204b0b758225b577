"""All parts with their defects, by name."""

from .bolt import draw_bolt, draw_flattened, draw_neck_scratch, draw_nicked
from .component import draw_absent, draw_bent, draw_component, draw_cut, draw_turned
from .defects import draw_contamination, draw_dent, draw_missing, draw_scratch
from .parts import draw_connector, draw_fabric, draw_tablets, draw_washer
from .scene import Defect, Part
from .steel import draw_cross_scratch, draw_rust, draw_shallow_dent, draw_steel

_COMMON = {
    "scratch": Defect(draw_scratch),
    "dent": Defect(draw_dent),
    "contamination": Defect(draw_contamination),
    "missing": Defect(draw_missing),
}
_BOLT = {
    "scratch": Defect(draw_neck_scratch),
    "flattened": Defect(draw_flattened),
    "nicked": Defect(draw_nicked),
    "contamination": Defect(draw_contamination),
}
_COMPONENT = {
    "cut": Defect(draw_cut),
    "bent": Defect(draw_bent),
    "turned": Defect(draw_turned, largest=0.4),
    "missing": Defect(draw_absent, largest=0.4),
}
_STEEL = {
    "scratch": Defect(draw_cross_scratch),
    "dent": Defect(draw_shallow_dent),
    "contamination": Defect(draw_contamination),
    "rust": Defect(draw_rust),
}
PARTS = {
    "washer": Part(draw_washer, _COMMON),
    "connector": Part(draw_connector, _COMMON),
    "fabric": Part(draw_fabric, _COMMON),
    "tablets": Part(draw_tablets, _COMMON),
    "bolt": Part(draw_bolt, _BOLT),
    "component": Part(draw_component, _COMPONENT),
    "steel": Part(draw_steel, _STEEL),
}
