"""LampAE: a reconstruction network trained with LAMP, as an anomalib model."""

from collections.abc import Sequence
from typing import Any

import torch
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import STEP_OUTPUT, OptimizerLRScheduler
from torch import Tensor

from anomalib_lamp.callbacks import (
    BestAverage,
    CheckImages,
    Float32Weights,
    HeldOutImages,
    TrainingBudget,
    TrainingImagesInMemory,
    WarnOfOneKind,
)
from anomalib_lamp.callbacks.held_out import zero_loss
from anomalib_lamp.corruption import Corruption
from anomalib_lamp.losses import LampLoss
from anomalib_lamp.models.host import HostDefaults, seeded_weights
from anomalib_lamp.optim import check_optimizer_arguments, configure_optimizer
from anomalib_lamp.precision import has_fast_bfloat16
from anomalib_lamp.visualization import ReconstructionVisualizer

from .adaptive_shift import AdaptiveShift
from .anomaly_map import CALIBRATIONS, MAP_METRIC
from .calibrate_maps import CalibrateMaps
from .torch_model import LampAEModel


class LampAE(HostDefaults, AnomalibModule):
    """Reconstruction model trained with loss amplification (LAMP).

    A network learns to reconstruct images without defects; what it reconstructs badly is anomalous. LAMP changes the
    loss only: every pixel's error L becomes ``-log(1 - L)``. No pre-trained weights are needed.

    By default the network learns to repair: its input is damaged on the fly, its target is the image as it was. This
    deviates from the paper; ``corruption_strength=0`` gives its plain reconstruction. Left open by the paper and chosen
    here: networks, image size, optimiser settings, training budget, map and score.

    An eighth of the training images is held out from learning. They choose the weights: the moving average, checked
    twenty times in a training, that repairs them best is what is validated, saved and kept. They choose the
    calibration, if it is ``auto``: the one whose maps and scores tell them best from damaged copies of them, with a
    preference for calibration by location. Where they are repaired clearly worse than learnt images, the images to
    learn are shifted at random from then on. No test image is used; the choice is printed and kept in the checkpoint.

    Args:
        architecture: Network: ``autoencoder`` (everything passes a bottleneck) or ``unet``.
        width: Channels at half resolution; they double with every halving, up to 512.
        depth: Number of halvings, at least 2.
        skip_connections: For ``unet``: whether features of the way down join those of the way up.
        latent_channels: For ``autoencoder``: channels of the bottleneck.
        corruption_strength: How strongly training images are damaged before they must be repaired, in [0, 1]; 0 for
            plain reconstruction.
        corruption_kinds: What damaged regions are filled with: some of ``colour``, ``texture``, ``shift``, ``swap``,
            ``recolour``; ``null`` for all.
        corruption_noise: Largest standard deviation of the Gaussian noise on damaged images, in grey levels of 1; 0 for
            none.
        furthest_shift: How far images are shifted at most once the network overfits, as a fraction of their side, in
            [0, 1); 0 for never.
        base_loss: Error per element that is amplified: ``l1``, ``l2``, ``ssim`` or ``msgms``.
        amplify: Whether to amplify the error (LAMP); ``false`` trains with the base loss at the same reduction.
        reduction: ``sum`` over the elements of an image, then mean over the batch (the paper's), or ``mean``.
        optimizer: ``adam``, ``adamw``, ``rmsprop`` or ``sgd`` (with momentum 0.9).
        learning_rate: Peak learning rate. ``null`` takes 1e-3 for Adam and AdamW, 5e-4 for RMSprop, and for SGD 0.5,
            divided by the number of elements of an image if the reduction is a sum.
        schedule: ``cosine`` (linear warm-up over 5 % of the steps, then half a cosine to 0) or ``constant``.
        max_steps: Training budget in optimisation steps, used if neither the number of epochs nor of steps is given to
            the trainer. ``--trainer.max_epochs`` or ``--trainer.max_steps`` win, whether smaller or larger. (One
            exception: 1000 epochs are Lightning's own default and read as "not given"; ask for 1001.)
        mixed_precision: Whether the network learns in bfloat16 where the hardware multiplies it faster (AMX, tensor
            cores); loss, weights and predictions are float32 in any case. A mixed ``--trainer.precision`` wins.
        map_metric: Error that makes the anomaly map: ``l1``, ``l2``, ``ssim``, ``msgms``, ``chroma`` (colour, whatever
            the brightness), or several joined by ``+``.
        smoothing: Standard deviation, in pixels, of the Gaussian that smooths the map; 0 for none.
        sharp_maps: Further maps whose peaks count in the image score: the error of each and its smoothing in pixels.
            The score is the mean of their peaks and the anomaly map's, standardised by held-out images. ``null`` takes
            ``{ssim: 1.0}``, a sharp map for the smallest defects; ``{}`` scores by the anomaly map alone.
        calibration: ``none``; ``location`` to set errors against those of held-out images at the same place, which
            suits parts that always lie alike; or ``auto``.
        pooling: How a peak is taken from a map: ``max``, ``topk`` (mean of the largest) or ``mean``.
        topk_fraction: For ``topk``: the fraction of pixels that counts, in (0, 1].
        false_positive_rate: Fraction of normal images that may be called anomalous, in (0, 0.5]. Then the thresholds
            come from normal validation images alone, and no defects are needed; have the datamodule split some off:
            ``--data.val_split_mode from_train --data.val_split_ratio 0.2``. ``null`` takes the thresholds of the best
            F1 (anomalib's), which needs defects among the validation images. Not used if a ``post_processor`` is given.
        image_size: Side, in pixels, of the square that images are resized to. Larger ones show smaller defects and take
            longer; let ``smoothing`` grow with them. Not used if a ``pre_processor`` is given.
        seed: Seed of weights, shuffling and training; two runs with the same seed give identical weights on the CPU.
            ``null`` takes torch's global state. Use this instead of ``--seed_everything``, which anomalib ignores. If
            validation images are split off at random, the datamodule has a ``seed`` of its own.
        pre_processor: Pre-processor, or ``true`` for resizing only. Images must stay in [0, 1]: do not normalise.
        post_processor: Post-processor, or ``true`` for :class:`~anomalib_lamp.post_processing.OddsPostProcessor`.
        evaluator: Evaluator, or ``true`` for anomalib's metrics.
        visualizer: Visualizer, or ``true`` for pictures with the reconstruction.

    Raises:
        ValueError: If an argument is unknown or out of range.

    Example:
        >>> model = LampAE(architecture="autoencoder", base_loss="l1", optimizer="adamw", max_steps=500, seed=0)
        >>> model.name
        'LampAE'

    Source: Park et al., "Neural Network Training Strategy to Enhance Anomaly Detection Performance: A Perspective on
    Reconstruction Loss Amplification", 2023, https://arxiv.org/abs/2308.14595
    """

    default_image_size = 128

    def __init__(
        self,
        architecture: str = "unet",
        width: int = 16,
        depth: int = 4,
        skip_connections: bool = True,
        latent_channels: int = 64,
        corruption_strength: float = 1.0,
        corruption_kinds: list[str] | None = None,
        corruption_noise: float = 0.05,
        furthest_shift: float = 0.125,
        base_loss: str = "ssim",
        amplify: bool = True,
        reduction: str = "sum",
        optimizer: str = "adam",
        learning_rate: float | None = None,
        schedule: str = "cosine",
        max_steps: int = 2000,
        mixed_precision: bool = True,
        map_metric: str = MAP_METRIC,
        smoothing: float = 2.5,
        sharp_maps: dict[str, float] | None = None,
        calibration: str = "auto",
        pooling: str = "max",
        topk_fraction: float = 0.001,
        false_positive_rate: float | None = None,
        image_size: int = default_image_size,
        seed: int | None = None,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        if pre_processor is True:
            pre_processor = self.configure_pre_processor((image_size, image_size))
        if post_processor is True:
            post_processor = self.configure_post_processor(false_positive_rate)
        super().__init__(
            pre_processor=pre_processor,
            post_processor=post_processor,
            evaluator=evaluator,
            visualizer=visualizer,
        )
        if max_steps < 1:
            msg = f"Expected max_steps to be at least 1, got {max_steps}."
            raise ValueError(msg)
        if reduction == "none":
            msg = "Expected reduction to be 'sum' or 'mean', got 'none': training needs a scalar."
            raise ValueError(msg)
        check_optimizer_arguments(optimizer, learning_rate, schedule)
        with seeded_weights(seed):
            self.model: LampAEModel = LampAEModel(
                architecture=architecture,
                width=width,
                depth=depth,
                skip_connections=skip_connections,
                latent_channels=latent_channels,
                map_metric=map_metric,
                smoothing=smoothing,
                sharp_maps=sharp_maps,
                calibration="none" if calibration == "auto" else calibration,
                pooling=pooling,
                topk_fraction=topk_fraction,
            )
        if self.input_size and min(self.input_size) < self.model.smallest_side:
            msg = (
                f"Expected images of at least {self.model.smallest_side} pixels a side for depth={depth}, "
                f"got {tuple(self.input_size)}. Raise image_size or lower depth."
            )
            raise ValueError(msg)
        self.calibrations = CALIBRATIONS if calibration == "auto" else (calibration,)
        self.corruption = Corruption(corruption_strength, corruption_kinds, noise=corruption_noise)
        self.shift = AdaptiveShift(furthest_shift)
        self.held_out = HeldOutImages(fraction=0.125, at_least=4, at_most=100, seed=seed)
        self.loss: LampLoss = LampLoss(base=base_loss, amplify=amplify, reduction=reduction)
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.max_steps = max_steps
        self.mixed_precision = mixed_precision
        self.seed = seed

    def configure_callbacks(self) -> Sequence[Callback]:
        """Return anomalib's callbacks, and those that make up a training, in the order in which they act."""
        return [
            *super().configure_callbacks(),  # type: ignore[misc]
            Float32Weights(),
            TrainingBudget(self.max_steps, validations=4, seed=self.seed),
            CheckImages(),
            WarnOfOneKind(),
            TrainingImagesInMemory(),
            self.held_out,
            self.shift,
            BestAverage(self.model.network, self.held_out, self.corruption, self._checked_loss, self.shift.adapt),
            CalibrateMaps(self.model, self.held_out, self.calibrations, self.corruption.kinds),
        ]

    def training_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Return the loss of a batch and log the training curves.

        Args:
            batch: Batch of images without defects, in [0, 1].
            *args: Not used.
            **kwargs: Not used.

        Raises:
            FloatingPointError: If the training has diverged; the last checkpoint is as it was.
        """
        del args, kwargs
        images = self.held_out.to_learn(batch)
        if not len(images):
            return zero_loss(self)
        images = self.shift(images)
        damaged = self.corruption(images)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._in_bfloat16):
            reconstruction = self.model(damaged)
        self._require_finite(reconstruction)
        error = self.loss.base_error(reconstruction, images)
        loss = self.loss.reduce(error)
        size = len(images)
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True, batch_size=size)
        self.log("train_base_error", error.mean(), on_step=True, on_epoch=True, batch_size=size)
        self.log("learning_rate", self.optimizers().param_groups[0]["lr"], on_step=True)  # type: ignore[union-attr]
        self.log("shift_reach", self.shift.reach, on_step=True)
        return loss

    def _checked_loss(self, reconstruction: Tensor, images: Tensor) -> Tensor:
        """Return the loss of a reconstruction by the averaged weights."""
        self._require_finite(reconstruction)
        return self.loss(reconstruction, images)

    def _require_finite(self, reconstruction: Tensor) -> None:
        if not reconstruction.isfinite().all():
            msg = (
                f"The network's output is not finite at step {self.trainer.global_step}: the training has diverged. "
                f"The last checkpoint is kept. Lower learning_rate (given: {self.learning_rate})."
            )
            raise FloatingPointError(msg)

    @property
    def _in_bfloat16(self) -> bool:
        return self.mixed_precision and self.trainer.precision == "32-true" and has_fast_bfloat16(self.device)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser and its schedule over the steps that the trainer will take."""
        height, width = self.input_size or (self.default_image_size, self.default_image_size)
        elements = 3 * height * width if self.loss.reduction == "sum" else 1
        return configure_optimizer(
            self.model.parameters(),
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            total_steps=self.trainer.estimated_stepping_batches,
            summed_elements=elements,
        )

    @classmethod
    def configure_visualizer(cls) -> ReconstructionVisualizer:
        """Return a visualizer that shows the reconstruction."""
        return ReconstructionVisualizer(text_config={"size": 18})
