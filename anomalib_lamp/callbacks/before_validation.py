"""When a model has to be brought up to date, so that what is validated is what is saved."""

from abc import ABC, abstractmethod

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn


class BeforeValidation(Callback, ABC):
    """Base of callbacks that bring a model up to date before every validation of a fit.

    Checkpoints are saved after validations, or after epochs where nothing is validated; then the model is brought up
    to date at the end of the epoch.
    """

    @abstractmethod
    def bring_up_to_date(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the model what it would be if the training ended now."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the model up to date before a validation that is part of a fit."""
        if trainer.state.fn == TrainerFn.FITTING:
            self.bring_up_to_date(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the model up to date where nothing is validated."""
        if not trainer.enable_validation:
            self.bring_up_to_date(trainer, pl_module)
