"""LampAE: a reconstruction network trained with LAMP, as an anomalib model."""

import itertools
import math
from typing import Any

import torch
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.types import STEP_OUTPUT, OptimizerLRScheduler
from torch import Tensor

from anomalib_lamp.corruption import Corruption, repeatably
from anomalib_lamp.losses import LampLoss
from anomalib_lamp.models.held_out import HeldOutMixin
from anomalib_lamp.models.host import HostMixin, has_fast_bfloat16, seeded_weights
from anomalib_lamp.optim import check_optimizer_arguments, configure_optimizer
from anomalib_lamp.visualization import ReconstructionVisualizer

from .adaptive_shift import AdaptiveShift
from .anomaly_map import CALIBRATIONS, MAP_METRIC
from .averaging import BestAverage
from .calibration import METRICS_TO_TRY, POOLINGS_TO_TRY, Choice, calibrate
from .torch_model import LampAEModel

AUTO = "auto"
JUDGES = 32  # held-out images by which weights are chosen, and learnt ones beside them
CHECKS = 20  # of the weights in a training
CHECK_EVERY = 50  # steps, in a training without a limit


class LampAE(HeldOutMixin, HostMixin, AnomalibModule):
    """Reconstruction model trained with loss amplification (LAMP).

    A network learns to reconstruct images without defects; what it reconstructs badly is anomalous. LAMP changes the
    loss only: every pixel's error L becomes ``-log(1 - L)``. No pre-trained weights are needed.

    By default the network learns to repair: its input is damaged on the fly, its target is the image as it was. This
    deviates from the paper; ``corruption_strength=0`` gives its plain reconstruction. Left open by the paper and chosen
    here: networks, image size, optimiser settings, training budget, map and score. What is ``auto`` of the latter (by
    default the calibration) the model decides by itself: which way tells an eighth of the training images, held out
    from learning, from damaged copies of them, best or with calibration nearly as well. No test image is looked at; the
    choice is printed, and kept in the checkpoint.

    The held-out images also choose the weights: the moving average, looked at twenty times in a training, that repairs
    them best is what is validated, saved and kept. It is the last one unless few images are learnt by heart. Where the
    held-out images are repaired clearly worse than learnt ones, the images to learn are shifted at random from then on.

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
        furthest_shift: How far images are shifted at most once they are learnt by heart, as a fraction of their side,
            in [0, 1); 0 for never.
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
            the brightness), several joined by ``+``, or ``auto``.
        smoothing: Standard deviation, in pixels, of the Gaussian that smooths the map; 0 for none.
        calibration: ``none``; ``location`` to set errors against those of held-out images at the same place, which
            suits parts that always lie alike; or ``auto``.
        score_metrics: Errors that make the image score, each with the smoothing of its map in pixels; the score is the
            mean of these maps' peaks, standardised by held-out images. ``null`` takes ``{ssim: 1.0,
            ssim+msgms+chroma: 2.5}``: a sharp map, for the smallest defects, and a map like the one that is shown.
        pooling: How a peak is taken from a map: ``max``, ``topk`` (mean of the largest), ``mean``, or ``auto``.
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

    validations = 4
    default_image_size = 128
    held_out_fraction = 0.125
    held_out_at_least = 4
    held_out_at_most = 100

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
        calibration: str = "auto",
        score_metrics: dict[str, float] | None = None,
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
                map_metric=METRICS_TO_TRY[0] if map_metric == AUTO else map_metric,
                smoothing=smoothing,
                calibration=CALIBRATIONS[0] if calibration == AUTO else calibration,
                score_metrics=score_metrics,
                pooling=POOLINGS_TO_TRY[0] if pooling == AUTO else pooling,
                topk_fraction=topk_fraction,
            )
        if self.input_size and min(self.input_size) < self.model.smallest_side:
            msg = (
                f"Expected images of at least {self.model.smallest_side} pixels a side for depth={depth}, "
                f"got {tuple(self.input_size)}. Raise image_size or lower depth."
            )
            raise ValueError(msg)
        self.candidates = {
            "metrics": METRICS_TO_TRY if map_metric == AUTO else (map_metric,),
            "calibrations": CALIBRATIONS if calibration == AUTO else (calibration,),
            "poolings": POOLINGS_TO_TRY if pooling == AUTO else (pooling,),
        }
        self.corruption = Corruption(corruption_strength, corruption_kinds, noise=corruption_noise)
        self.shift = AdaptiveShift(furthest_shift)
        self.loss: LampLoss = LampLoss(base=base_loss, amplify=amplify, reduction=reduction)
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.max_steps = max_steps
        self.mixed_precision = mixed_precision
        self.seed = seed
        self._normal: Tensor | None = None
        self._learnt: tuple[Tensor, Tensor] | None = None
        self._choice: Choice | None = None
        self._best: BestAverage | None = None
        self._interrupted: dict[str, Any] | None = None
        self._check_every = CHECK_EVERY

    def on_train_start(self) -> None:
        """Hold images out that choose weights and map, and calibrate it."""
        to_learn, held_out = self.split_training_images()
        if not held_out:
            self._without_held_out()
            return
        self._normal = self.hold_out(held_out)
        steps = self.trainer.estimated_stepping_batches
        self._check_every = max(1, int(steps) // CHECKS) if math.isfinite(steps) else CHECK_EVERY
        judges = self._normal[:JUDGES]
        learnt = self._some_of(to_learn, len(judges))
        self._best = BestAverage(self.model.network, repeatably(self.corruption, judges), judges, self._loss_of)
        self._learnt = repeatably(self.corruption, learnt), learnt
        self.shift.reach = 0.0
        if self.resumes and self._interrupted:
            self._best.load_state_dict(self._interrupted["best_average"])
            self.shift.reach = self._interrupted["shift_reach"]

    def _some_of(self, indices: list[int], count: int) -> Tensor:
        """Read training images, evenly spread over all that are learnt; as many as judge, so their damage is alike."""
        spread = [indices[number * len(indices) // count] for number in range(count)]
        return torch.cat([batch.image for batch in self.training_batches(spread)])  # type: ignore[misc]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save, beside the weights that are kept, those that are learnt."""
        super().on_save_checkpoint(checkpoint)
        if self._best:
            checkpoint["interrupted"] = {"best_average": self._best.state_dict(), "shift_reach": self.shift.reach}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember the weights that were learnt, should the training go on."""
        super().on_load_checkpoint(checkpoint)
        self._interrupted = checkpoint.get("interrupted")

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Learn on with the weights that learn, not with those that were validated and saved."""
        del args, kwargs
        if self._best:
            self._best.learn_on(self.model.network)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Follow the network; look from time to time how its average does on held-out and on learnt images."""
        super().on_train_batch_end(*args, **kwargs)
        if self._best and self._learnt:
            self._best.follow(self.model.network, self.trainer.global_step)
            if self.trainer.global_step % self._check_every == 0 and self._best.check():
                self.shift.adapt(self._best.loss_of_last, self._best.loss_on(*self._learnt))

    def _without_held_out(self) -> None:
        """Say what happens with too few images to hold some out."""
        if self.candidates["calibrations"] == ("location",):
            msg = f"Expected at least {2 * self.held_out_at_least} training images for calibration='location'."
            raise ValueError(msg)
        maps = self.model.anomaly_map_generator
        rank_zero_warn(f"Too few training images to hold some out: the map is made by {maps.metric}, uncalibrated.")

    def on_validation_start(self) -> None:
        """Decide and calibrate before what is validated and saved."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._calibrate()

    def on_train_epoch_end(self) -> None:
        """Decide and calibrate for the checkpoint of a training without validation."""
        if not self.trainer.enable_validation:
            self._calibrate()

    def _calibrate(self) -> None:
        if self._normal is None:
            return
        self._show_kept()
        training = self.model.training
        self._choice = calibrate(self.model.eval(), self._normal, **self.candidates, kinds=self.corruption.kinds)
        self.model.train(training)

    def _show_kept(self) -> None:
        """Give the model the best weights so far, the same in all processes, whose batch norms differ."""
        if self._best:
            self._best.check()
            self._best.show(self.model.network)
        if self.trainer.world_size > 1:
            for tensor in itertools.chain(self.model.parameters(), self.model.buffers()):
                torch.distributed.broadcast(tensor.data, src=0)

    def on_train_end(self) -> None:
        """Keep the best weights, print what was decided, and let go of the images."""
        if self._normal is not None:
            self._show_kept()
            rank_zero_info(
                f"By {len(self._normal)} held-out training images: {self._choice}; "
                f"images to learn shifted by up to {self.shift.reach:.1%} of their side at the end."
            )
        self._best = self._normal = self._learnt = None
        self.let_go()

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
        images = self.to_learn(batch)
        if not len(images):
            return self.nothing_to_learn()
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

    def _loss_of(self, reconstruction: Tensor, images: Tensor) -> Tensor:
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
