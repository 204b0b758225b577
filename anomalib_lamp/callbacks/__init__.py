"""Lightning callbacks, each with one task and its own state; all but AmplifyLoss make up the training of our models."""

from .amplify_loss import AmplifyLoss
from .before_validation import BeforeValidation
from .best_average import BestAverage
from .check_images import CheckImages
from .float32_weights import Float32Weights
from .freed_memory import KeepFreedMemory
from .held_out import HeldOutImages
from .one_kind import WarnOfOneKind
from .repeatable_steps import RepeatableSteps
from .resume_points import ResumePoints
from .training_budget import TrainingBudget, stop_after_validation
from .training_images import TrainingImages

__all__ = [
    "AmplifyLoss",
    "BeforeValidation",
    "BestAverage",
    "CheckImages",
    "Float32Weights",
    "HeldOutImages",
    "KeepFreedMemory",
    "RepeatableSteps",
    "ResumePoints",
    "TrainingBudget",
    "TrainingImages",
    "WarnOfOneKind",
    "stop_after_validation",
]
