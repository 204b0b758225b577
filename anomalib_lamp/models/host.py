"""The defaults of anomalib's hooks that our models share."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from anomalib import LearningType
from anomalib.data import Batch
from anomalib.deploy import CompressionType
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import ImageVisualizer
from lightning import LightningModule
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import nn
from torchvision.transforms.v2 import Resize

from anomalib_lamp.callbacks import (
    CheckImages,
    Float32Weights,
    KeepFreedMemory,
    RepeatableSteps,
    TrainingBudget,
    TrainingImages,
    WarnOfOneKind,
)
from anomalib_lamp.post_processing import OddsPostProcessor
from anomalib_lamp.pre_processing import AntialiasedPreProcessor
from anomalib_lamp.visualization import ImagePictures


@contextmanager
def seeded_weights(seed: int | None) -> Iterator[None]:
    """Draw initial weights from a seed and leave torch's global state alone; ``None`` draws from that state."""
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        yield


def require_package(name: str, target: str, purpose: str = "") -> None:
    """Raise ModuleNotFoundError unless a package is installed that an export to a format needs."""
    if find_spec(name) is None:
        msg = f"The export to {target} needs {name}{purpose}, which is not installed: pip install {name}"
        raise ModuleNotFoundError(msg, name=name)


class HostDefaults(LightningModule):
    """Stands before ``AnomalibModule`` among the bases of a model.

    A base class between the model and ``AnomalibModule`` would hide the model from anomalib's ``get_model``.

    Attributes:
        model: Network that returns predictions in evaluation mode.
        default_image_size: Side, in pixels, of the square that images are resized to unless told otherwise.
    """

    model: nn.Module
    default_image_size: int = 256

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

    def to_openvino(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        compression_type: CompressionType | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Path:
        """Export to OpenVINO as anomalib does, but say which package is missing.

        Args:
            export_root: Output folder.
            model_file_name: Name of the file without ending.
            input_size: Height and width of the input, or ``None`` for any size.
            compression_type: ``fp16`` or one of the ``int8`` kinds, which need the package nncf; ``None`` for none.
            *args: Further arguments of anomalib's ``to_openvino``.
            **kwargs: The same.

        Raises:
            ModuleNotFoundError: If openvino, or nncf where it is needed, is not installed.
        """
        require_package("openvino", "OpenVINO")
        if compression_type not in (None, CompressionType.FP16):
            require_package("nncf", "OpenVINO", f" for compression_type {CompressionType(compression_type).value}")
        return super().to_openvino(export_root, model_file_name, input_size, compression_type, *args, **kwargs)  # type: ignore[misc]

    def shared_callbacks(self, max_steps: int, validations: int, seed: int | None) -> list[Callback]:
        """Return the callbacks that every training of our models begins with, in the order in which they act.

        Args:
            max_steps: The model's own number of steps.
            validations: How many validations are spread over them.
            seed: Seed of the training.
        """
        budget = TrainingBudget(max_steps, validations)
        if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            budget.give_to(self.trainer)
        return [
            Float32Weights(),
            KeepFreedMemory(),
            budget,
            RepeatableSteps(seed),
            CheckImages(),
            WarnOfOneKind(),
            TrainingImages(seed),
        ]

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

    @classmethod
    def configure_visualizer(cls) -> ImageVisualizer:
        """Return a visualizer that saves a picture of its own for every image."""
        return ImagePictures()

    def configure_post_processor(self, false_positive_rate: float | None = None) -> PostProcessor:
        """Return a post-processor that normalises without clipping.

        Args:
            false_positive_rate: Fraction of normal images that may be called anomalous; ``None`` for the best F1.
        """
        return OddsPostProcessor(false_positive_rate)
