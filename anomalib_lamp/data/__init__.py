"""Datamodules for anomalib."""

from .mnist_one_class import MNISTOneClass
from .mvtec import MVTec
from .synthetic_parts import SyntheticParts

__all__ = ["MNISTOneClass", "MVTec", "SyntheticParts"]
