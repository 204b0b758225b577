"""When the map and the score of a LampAE in training are calibrated."""

from collections.abc import Sequence
from contextlib import nullcontext

from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from anomalib_lamp.callbacks import BeforeValidation, HeldOutImages

from .choose_calibration import Choice, calibrate
from .feature_memory import FeatureMemory
from .torch_model import LampAEModel


class CalibrateMaps(BeforeValidation):
    """Calibrate map and score with held-out images before every validation, and choose how.

    Args:
        model: The model; its weights have to be those that are kept, so the callback that chooses them comes first.
        held_out: Held-out images; its callback has to come first, too.
        calibrations: Calibrations to choose from.
        memory: Features of the training images, if the model looks at features.

    Raises:
        ValueError: When the training starts, if there are too few images for the only calibration allowed.
    """

    def __init__(
        self, model: LampAEModel, held_out: HeldOutImages, calibrations: Sequence[str], memory: FeatureMemory | None
    ) -> None:
        self.model = model
        self.held_out = held_out
        self.calibrations = calibrations
        self.memory = memory
        self.choice: Choice | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what happens with too few images to hold some out."""
        del trainer, pl_module
        if len(self.held_out.images):
            return
        if tuple(self.calibrations) == ("location",):
            msg = f"Expected at least {2 * self.held_out.at_least} training images for calibration='location'."
            raise ValueError(msg)
        evidence = ", ".join(self.model.map_and_score.names)
        rank_zero_warn(f"Too few training images to hold some out: the map is made by {evidence}, uncalibrated.")

    def bring_up_to_date(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Calibrate the model as it is now."""
        del trainer, pl_module
        if not len(self.held_out.images):
            return
        training = self.model.training
        with self.memory.without_held_out() if self.memory is not None else nullcontext():
            self.choice = calibrate(self.model.eval(), self.held_out.images, self.calibrations)
        self.model.train(training)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print what was chosen."""
        del trainer, pl_module
        if self.choice is not None:
            rank_zero_info(f"By {len(self.held_out.images)} held-out training images: {self.choice}.")
