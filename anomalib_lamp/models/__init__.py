"""Models for anomalib."""

from .fine_tuned_gaussian import FineTunedGaussian
from .lamp_ae import LampAE

__all__ = ["FineTunedGaussian", "LampAE"]
