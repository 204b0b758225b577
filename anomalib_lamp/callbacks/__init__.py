"""Lightning callbacks that make up the training of our models, each with one task and its own state."""

from .before_validation import BeforeValidation
from .best_average import BestAverage
from .check_images import CheckImages
from .float32_weights import Float32Weights
from .held_out import HeldOutImages
from .in_memory import TrainingImagesInMemory
from .one_kind import WarnOfOneKind
from .training_budget import TrainingBudget, stop_after_validation

__all__ = [
    "BeforeValidation",
    "BestAverage",
    "CheckImages",
    "Float32Weights",
    "HeldOutImages",
    "TrainingBudget",
    "TrainingImagesInMemory",
    "WarnOfOneKind",
    "stop_after_validation",
]
