"""Models for anomalib."""

from .lamp_ae import LampAE

__all__ = ["LampAE"]
