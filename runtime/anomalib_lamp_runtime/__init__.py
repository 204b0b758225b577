"""Inspects photographs of parts with a model that `anomalib-lamp export` wrote; without torch and anomalib."""

from anomalib_lamp_runtime.errors import ExportError, InspectionError
from anomalib_lamp_runtime.inspection import Inspection
from anomalib_lamp_runtime.inspector import Inspector
from anomalib_lamp_runtime.regions import Region

__version__ = "0.1.0"
__all__ = ["ExportError", "Inspection", "InspectionError", "Inspector", "Region"]
