"""How long a training takes, when it is validated, and how it ends."""

import logging
import math
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Timer

logger = logging.getLogger(__name__)

LIGHTNING_DEFAULT_EPOCHS = 1000
STEPS_WITHOUT_LIMIT = 50  # between two events of a training without a limit


class TrainingBudget(Callback):
    """Give a fit the model's own number of steps unless the user limited epochs or steps.

    Lightning turns "no limit given" into 1000 epochs, or into -1 beside a time limit; both are read as "not given".
    A fit that is limited by steps is validated at equal intervals unless the user chose when. Every fit is validated
    after its last step, whatever ended it (steps, epochs, a time limit, early stopping), so that the model is
    calibrated and saved as it is then.

    Args:
        max_steps: Optimisation steps of a training.
        validations: How many validations are spread over a training that is limited by steps.

    Raises:
        RuntimeError: When a fit starts with a trainer that has trained before.

    Example:
        >>> trainer = Trainer(callbacks=[TrainingBudget(max_steps=100)], logger=False, accelerator="cpu")
    """

    def __init__(self, max_steps: int, validations: int = 10) -> None:
        self.max_steps = max_steps
        self.validations = validations
        self._validated_step = -1

    def give_to(self, trainer: Trainer) -> None:
        """Set the steps and the validations of a fit.

        A model does so when it makes its callbacks. :meth:`setup` would be too late for callbacks of the user, which
        are set up before: early stopping looks there when validations come.
        """
        self._limit_steps(trainer)
        self._spread_validations(trainer)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a trainer that has trained before."""
        del pl_module
        if stage == "fit":
            require_unused(trainer)

    def _limit_steps(self, trainer: Trainer) -> None:
        """Train for ``max_steps`` if neither steps nor epochs are limited."""
        timed = any(isinstance(callback, Timer) for callback in trainer.callbacks)  # type: ignore[attr-defined]
        no_epochs_given = trainer.max_epochs == LIGHTNING_DEFAULT_EPOCHS or (timed and trainer.max_epochs == -1)
        if trainer.max_steps != -1 or not no_epochs_given:
            return
        trainer.fit_loop.max_epochs = -1
        trainer.fit_loop.epoch_loop.max_steps = self.max_steps
        logger.info("Training for %d steps (init argument max_steps).", self.max_steps)

    def _spread_validations(self, trainer: Trainer) -> None:
        """Validate at equal intervals if steps are limited and the user has not chosen when to validate."""
        limited_by_steps = trainer.max_steps != -1 and trainer.max_epochs == -1
        user_chose = trainer.val_check_interval != 1.0 or trainer.check_val_every_n_epoch != 1
        if trainer.enable_validation and limited_by_steps and not user_chose:
            batches = trainer.max_steps * trainer.accumulate_grad_batches
            trainer.val_check_interval = math.ceil(batches / self.validations)
            trainer.check_val_every_n_epoch = None

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """After the last step or batch, end the training with a validation."""
        del args, kwargs
        last_of_epochs = trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
        if trainer.global_step == trainer.max_steps or last_of_epochs:
            stop_after_validation(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take note of the step."""
        del pl_module
        self._validated_step = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the last step, if something ended the training after an epoch without a validation."""
        del pl_module
        if trainer.enable_validation and self._validated_step != trainer.global_step:
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True


def steps_between(trainer: Trainer, events: int) -> int:
    """Return after how many steps an event comes again that is to come so often in a training."""
    steps = trainer.estimated_stepping_batches
    return max(1, int(steps) // events) if math.isfinite(steps) else STEPS_WITHOUT_LIMIT


def require_unused(trainer: Trainer) -> None:
    """Raise RuntimeError if a trainer has trained before: it would stop at once, and an untrained model be tested."""
    if trainer.global_step:
        msg = (
            f"Expected a new Engine for every fit, got one that has trained {trainer.global_step} steps and would stop "
            "at once. Make a new Engine; to go on with a training, give its checkpoint as ckpt_path, too."
        )
        raise RuntimeError(msg)


def stop_after_validation(trainer: Trainer) -> None:
    """Ask the trainer to stop; it validates once more, whatever the interval, if there is anything to validate."""
    trainer.should_stop = True
    if trainer.enable_validation:
        trainer.check_val_every_n_epoch = None
