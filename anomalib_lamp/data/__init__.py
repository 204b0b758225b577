"""Datamodules for anomalib."""

from .mvtec import MVTec
from .synthetic_parts import SyntheticParts

__all__ = ["MVTec", "SyntheticParts"]
