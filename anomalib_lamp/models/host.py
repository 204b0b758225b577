"""What our models ask of anomalib and Lightning alike: a budget of their own, seeds, resizing, export."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from anomalib import LearningType
from anomalib.data import Batch
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from lightning import LightningModule, seed_everything
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torchvision.transforms.v2 import Resize

from anomalib_lamp.models.in_memory import TrainingImagesInMemory
from anomalib_lamp.post_processing import OddsPostProcessor
from anomalib_lamp.pre_processing import AntialiasedPreProcessor

logger = logging.getLogger(__name__)

LIGHTNING_DEFAULT_EPOCHS = 1000
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")  # weights are float32


@contextmanager
def seeded_weights(seed: int | None) -> Iterator[None]:
    """Draw initial weights from a seed and leave torch's global state alone; ``None`` draws from that state."""
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        yield


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether a device has units that multiply bfloat16: a GPU with tensor cores, or a processor with AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch cannot tell
    return device.type == "cpu" and bool(capabilities.get("amx_bf16"))


class HostMixin(LightningModule):
    """Stands before ``AnomalibModule`` among the bases of a model; needs the attributes below.

    A base class between the model and ``AnomalibModule`` would hide the model from anomalib's ``get_model``.

    Attributes:
        model: Network that returns predictions in evaluation mode.
        max_steps: Training budget in optimisation steps, used if the trainer was given none.
        seed: Seed of shuffling and training, or ``None`` for torch's global state.
        validations: How many validations are spread over a training that is limited by steps.
        default_image_size: Side, in pixels, of the square that images are resized to unless told otherwise.
    """

    model: nn.Module
    max_steps: int
    seed: int | None
    validations: int = 10
    default_image_size: int = 256

    def setup(self, stage: str) -> None:
        """Before fitting, check the precision, and apply the model's budget unless the trainer was given one."""
        if stage == "fit":
            if self.trainer.precision not in PRECISIONS:
                msg = f"Expected a trainer's precision of {', '.join(PRECISIONS)}, got {self.trainer.precision}."
                raise ValueError(msg)
            self._apply_training_budget()
            self._spread_validations()

    def _apply_training_budget(self) -> None:
        """Train for ``max_steps``, unless the user limited epochs or steps.

        Lightning turns "no limit given" into 1000 epochs, or into -1 beside a time limit.
        """
        trainer = self.trainer
        timed = any(isinstance(callback, Timer) for callback in trainer.callbacks)  # type: ignore[attr-defined]
        untouched = trainer.max_epochs == LIGHTNING_DEFAULT_EPOCHS or (timed and trainer.max_epochs == -1)
        if trainer.max_steps != -1 or not untouched:
            return
        trainer.fit_loop.max_epochs = -1
        trainer.fit_loop.epoch_loop.max_steps = self.max_steps
        logger.info("Training for %d steps (init argument max_steps).", self.max_steps)

    def _spread_validations(self) -> None:
        """Spread the validations over a training limited by steps, unless the user chose when to validate."""
        trainer = self.trainer
        if not trainer.enable_validation:
            return
        limited_by_steps = trainer.max_steps != -1 and trainer.max_epochs == -1
        if limited_by_steps and trainer.val_check_interval == 1.0 and trainer.check_val_every_n_epoch == 1:
            batches = trainer.max_steps * trainer.accumulate_grad_batches
            trainer.val_check_interval = math.ceil(batches / self.validations)
            trainer.check_val_every_n_epoch = None

    def configure_callbacks(self) -> Sequence[Callback]:
        """Return anomalib's callbacks, and ours that keeps the training images in memory."""
        return [*super().configure_callbacks(), TrainingImagesInMemory()]  # type: ignore[misc]

    @property
    def resumes(self) -> bool:
        """Return whether the trainer goes on with an interrupted training."""
        return self.trainer.ckpt_path is not None

    def on_fit_start(self) -> None:
        """Seed shuffling and training."""
        if self.seed is not None:
            seed_everything(self.seed, workers=True, verbose=False)
            torch.manual_seed(self.seed + self.global_rank)  # every process damages its images in its own way

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """After the last step, ask to stop."""
        del args, kwargs
        trainer = self.trainer
        last_of_epochs = trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
        if trainer.global_step == trainer.max_steps or last_of_epochs:
            self.end_training()

    def end_training(self) -> None:
        """Ask to stop: then Lightning validates once more, whatever the interval, if there is a validation."""
        self.trainer.should_stop = True
        if self.trainer.enable_validation:
            self.trainer.check_val_every_n_epoch = None

    def nothing_to_learn(self) -> Tensor:
        """Return a loss of 0 for a batch without images to learn, with gradients of 0 for all that is learnt.

        Gradients there must be: other processes wait for them, and float16's scaling of losses asks for them.
        """
        learnt = [
            parameter
            for optimizer in self.trainer.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]
        if not learnt:
            return torch.zeros((), device=self.device, requires_grad=True)
        return torch.stack([parameter.sum() for parameter in learnt]).sum() * 0

    def validation_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Add the predictions to the batch, where the post-processor and the evaluator read them."""
        del args, kwargs
        return batch.update(**self.model(batch.image)._asdict())

    def to_onnx(  # type: ignore[override]
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> Path:
        """Export to ONNX as anomalib does, but with operator set 18 unless told otherwise.

        torch's exporter writes operator set 18; anomalib's default of 14 would need a conversion that can fail.

        Args:
            export_root: Output folder.
            model_file_name: Name of the file without ending.
            input_size: Height and width of the input, or ``None`` for any size.
            **kwargs: Arguments of ``torch.onnx.export``.
        """
        return super().to_onnx(export_root, model_file_name, input_size, **{"opset_version": 18, **kwargs})  # type: ignore[return-value, call-arg]

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Return trainer arguments: no validation before training, there is nothing to validate."""
        return {"num_sanity_val_steps": 0}

    @property
    def learning_type(self) -> LearningType:
        """Return the learning type: images without defects only."""
        return LearningType.ONE_CLASS

    @classmethod
    def configure_pre_processor(cls, image_size: tuple[int, int] | None = None) -> PreProcessor:
        """Return a pre-processor that resizes, in exported models alike, and keeps images in [0, 1].

        Args:
            image_size: Height and width in pixels; a square of the model's default size if not given.
        """
        size = image_size or (cls.default_image_size, cls.default_image_size)
        return AntialiasedPreProcessor(Resize(size))

    def configure_post_processor(self, false_positive_rate: float | None = None) -> PostProcessor:
        """Return a post-processor that normalises without clipping.

        Args:
            false_positive_rate: Fraction of normal images that may be called anomalous; ``None`` for the best F1.
        """
        return OddsPostProcessor(false_positive_rate)
