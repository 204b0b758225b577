"""LAMP for the reconstruction losses of anomalib's own models, and of yours."""

from .handle import Amplification, amplify_loss
from .registry import ErrorTerm, register_loss

__all__ = ["Amplification", "ErrorTerm", "amplify_loss", "register_loss"]
