"""LampAE: reconstruction with loss amplification (Park et al. 2023)."""

from .lightning_model import LampAE
from .torch_model import LampAEModel

__all__ = ["LampAE", "LampAEModel"]
