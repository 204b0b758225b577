"""Saves a training as it goes, so that it can be interrupted in any way and resumed."""

import copy
import signal
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from lightning import LightningModule, Trainer
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from .training_budget import steps_between

FILE_NAME = "resume.ckpt"
POINTS_PER_TRAINING = 20


class WholeFiles(CheckpointIO):
    """Have a checkpoint written beside the old one, and put it in its place when it is whole.

    Lightning's own moves it from the system's temporary folder, which may lie on another file system: killed in the
    meantime, neither the old nor the new checkpoint is left.

    Args:
        inner: What writes and reads files.
    """

    def __init__(self, inner: CheckpointIO) -> None:
        self.inner = inner

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save a checkpoint; remote ones as Lightning does."""
        if "://" in str(path):
            self.inner.save_checkpoint(checkpoint, path, storage_options)
            return
        part = Path(path).with_name(f"{Path(path).name}.part")
        try:
            self.inner.save_checkpoint(checkpoint, part, storage_options)
            part.replace(path)
        except OSError:
            with suppress(OSError):
                part.unlink()
            raise

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a checkpoint."""
        return self.inner.load_checkpoint(*args, **kwargs)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint."""
        self.inner.remove_checkpoint(path)


class ResumePoints(Callback):
    """Save what is needed to go on, twenty times in a training, as ``resume.ckpt`` beside the model's checkpoint.

    Trained on from there, and on the same processor, the model is bit for bit what it would be without interruption.
    The file is removed when the training is complete. SIGTERM, and the first Ctrl-C, save the step that is being taken;
    a second Ctrl-C stops at once. Nothing is saved where the trainer has no checkpoint callback.

    A test after a resumed training, as anomalib's ``Engine.train`` runs it, loads the checkpoint that was resumed; the
    trained weights, and the path of their file, are put in its place again. This callback comes last: it saves what the
    others have done.

    Example:
        >>> trainer = Trainer(callbacks=[ResumePoints()], logger=False, accelerator="cpu")
    """

    def __init__(self) -> None:
        self._interrupted = False
        self._saved_step = -1
        self._resumed_from: str | None = None
        self._trained: dict[str, Any] = {}
        self._trained_path = ""
        self._previous_handler: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have checkpoints written whole."""
        del pl_module
        if stage == "fit":
            self._saved_step, self._interrupted = -1, False
            if not isinstance(trainer.strategy.checkpoint_io, WholeFiles):
                trainer.strategy.checkpoint_io = WholeFiles(trainer.strategy.checkpoint_io)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a Ctrl-C wait for the end of a step."""
        del pl_module
        self._interval = steps_between(trainer, POINTS_PER_TRAINING)
        self._saved_step = trainer.global_step
        alone = trainer.world_size == 1 and threading.current_thread() is threading.main_thread()
        if alone and self._path(trainer) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous_handler = signal.signal(signal.SIGINT, self._wait_for_the_step)

    def _wait_for_the_step(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._interrupted = True
        self._restore_handler()
        rank_zero_info("The training stops after this step. Ctrl-C again stops at once.")

    def _restore_handler(self) -> None:
        if self._previous_handler is not None:
            signal.signal(signal.SIGINT, self._previous_handler)
            self._previous_handler = None

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Save when it is due or asked for; the end of a training is left to its validation."""
        del args, kwargs
        step = trainer.global_step
        if trainer.should_stop or step == self._saved_step:
            return
        if self._interrupted or step % self._interval == 0:
            self._save(trainer)
        if self._interrupted:
            raise KeyboardInterrupt

    def _save(self, trainer: Trainer) -> None:
        path = self._path(trainer)
        if path is not None:
            trainer.save_checkpoint(path, weights_only=False)
            self._saved_step = trainer.global_step

    @staticmethod
    def _path(trainer: Trainer) -> Path | None:
        folder = getattr(trainer.checkpoint_callback, "dirpath", None)
        return None if folder is None else Path(folder) / FILE_NAME

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the file of a complete training."""
        path = self._path(trainer)
        if path is not None and trainer.is_global_zero:
            path.unlink(missing_ok=True)
        self._restore_handler()
        self._resumed_from = trainer.ckpt_path  # type: ignore[assignment]
        self._trained = {} if self._resumed_from is None else copy.deepcopy(pl_module.state_dict())
        self._trained_path = getattr(trainer.checkpoint_callback, "best_model_path", "")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say how to go on, and save first if the step that was being taken is complete."""
        del pl_module
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self._restore_handler()
        if isinstance(exception, SIGTERMException) and trainer.training and trainer.world_size == 1:
            self._save(trainer)  # half a validation would not be taken up again well
        path = self._path(trainer)
        if path is not None and path.exists():
            rank_zero_warn(
                f"The training was interrupted after step {trainer.global_step}. Step {self._saved_step} is saved, but "
                f"it is not validated, and the model has no thresholds for it. To go on: --ckpt_path {path}"
            )

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Test what a resumed training made, not the checkpoint that it began with."""
        if self._trained and trainer.ckpt_path == self._resumed_from:
            pl_module.load_state_dict(self._trained)
            if isinstance(trainer.checkpoint_callback, ModelCheckpoint):
                trainer.checkpoint_callback.best_model_path = self._trained_path
            rank_zero_info(
                f"The model is tested as it is after the training that was resumed from {trainer.ckpt_path}."
            )
