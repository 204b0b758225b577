"""LampAE: a reconstruction network trained with LAMP, as an anomalib model."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning import LightningModule
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import STEP_OUTPUT, OptimizerLRScheduler
from torch import Tensor

from anomalib_lamp.backbone import check_source
from anomalib_lamp.callbacks import BestAverage, HeldOutImages, ResumePoints
from anomalib_lamp.callbacks.held_out import share_of_batch, zero_loss
from anomalib_lamp.corruption import Corruption
from anomalib_lamp.functional import at_least_float32
from anomalib_lamp.losses import LampLoss
from anomalib_lamp.models.host import HostDefaults, seeded_weights
from anomalib_lamp.optim import check_optimizer_arguments, configure_optimizer
from anomalib_lamp.precision import has_fast_bfloat16
from anomalib_lamp.visualization import ReconstructionVisualizer

from .adaptive_shift import AdaptiveShift
from .anomaly_map import CALIBRATIONS, MAP_METRIC
from .calibrate_maps import CalibrateMaps
from .feature_branch import FeatureBranch
from .feature_memory import FeatureMemory
from .torch_model import LampAEModel

PIXELS_ONLY_IMAGE_SIZE = 128
FEATURES_PER_STEP = 8  # images whose features are learnt in a step, whatever the batch size


class LampAE(HostDefaults, AnomalibModule):
    """Model that repairs images and their features, trained with loss amplification (LAMP).

    Networks learn to return what an image without defects looks like; what they change is anomalous. LAMP changes the
    loss only: every error L becomes ``-log(1 - L)``. One network repairs pixels. Another one repairs frozen features of
    a network that was trained on ImageNet, whose weights come with this package; a third kind of evidence is how far
    features are from normal ones at the same place. ``targets=pixels`` needs no pre-trained weights.

    The networks see damaged images or features and learn to return them as they were. This deviates from the paper;
    ``targets=pixels`` with ``corruption_strength=0`` gives its plain reconstruction. Left open by the paper and chosen
    here: networks, image size, optimiser settings, training budget, map and score.

    An eighth of the training images is held out from learning, or eight if that is more and at most half. They choose
    the weights: the moving average, checked twenty times in a training, that repairs them best is what is validated,
    saved and kept. They choose the weight of every kind of evidence, and the calibration if it is ``auto``, by how well
    maps and scores tell them from copies of them with damage of kinds that are not learnt. Where their pixels are
    repaired clearly worse than those of learnt images, the images to learn are shifted at random from then on. No test
    image is used; the choice is printed and kept in the checkpoint. Distances are measured from learnt and held-out
    images, once the choices are made.

    Args:
        targets: What is repaired: ``pixels``, ``features``, or both joined by ``+``.
        architecture: Network for pixels: ``autoencoder`` (everything passes a bottleneck) or ``unet``.
        width: Channels at half resolution; they double with every halving, up to 512.
        depth: Number of halvings, at least 2.
        skip_connections: For ``unet``: whether features of the way down join those of the way up.
        latent_channels: For ``autoencoder``: channels of the bottleneck.
        backbone: For features: name of a convolutional timm network with levels at strides 4, 8 and 16.
        weights: For features: where the backbone's weights come from: ``packaged`` (ImageNet weights that are installed
            with this package, for ``tf_efficientnet_lite0`` only), ``timm`` (timm's own, downloaded if need be),
            ``random``, or a local file with timm's names. Loading, testing and exporting a checkpoint needs none.
        corruption_strength: How strongly training images are damaged before they must be repaired, in [0, 1]; 0 for
            plain reconstruction.
        corruption_kinds: What damaged regions are filled with: some of ``colour``, ``texture``, ``shift``, ``swap``,
            ``recolour``; ``null`` for all.
        corruption_noise: Largest standard deviation of the Gaussian noise on damaged images, in grey levels of 1; 0 for
            none.
        furthest_shift: How far images are shifted at most once the network overfits, as a fraction of their side, in
            [0, 1); 0 for never.
        base_loss: Error of each pixel that is amplified: ``l1``, ``l2``, ``ssim`` or ``msgms``. Of features it is
            always ``(1 - cosine) / 2`` at each location.
        amplify: Whether to amplify the error (LAMP); ``false`` trains with the base loss at the same reduction.
        reduction: ``sum`` over the elements of an image, then mean over the batch (the paper's), or ``mean``.
        optimizer: ``adam``, ``adamw``, ``rmsprop`` or ``sgd`` (with momentum 0.9).
        learning_rate: Peak learning rate. ``null`` takes 1e-3 for Adam and AdamW, 5e-4 for RMSprop, and for SGD 0.5,
            divided by the number of elements of an image if the reduction is a sum.
        schedule: ``cosine`` (linear warm-up over 5 % of the steps, then half a cosine to 0) or ``constant``.
        max_steps: Training budget in optimisation steps, used if neither the number of epochs nor of steps is given to
            the trainer. ``--trainer.max_epochs`` or ``--trainer.max_steps`` win, whether smaller or larger. (One
            exception: 1000 epochs are Lightning's own default and read as "not given"; ask for 1001.)
        mixed_precision: Whether the network learns in bfloat16 where the hardware multiplies it faster (tensor cores,
            AMX, AVX512-BF16); loss, weights and predictions are float32 in any case. A mixed ``--trainer.precision``
            wins.
        map_metric: Error of pixels that counts in the anomaly map: ``l1``, ``l2``, ``ssim``, ``msgms``,
            ``chroma`` (colour, whatever the brightness), or several joined by ``+``.
        smoothing: Standard deviation, in pixels, of the Gaussian that smooths it; 0 for none.
        sharp_maps: Further errors of pixels that count in the map, and the smoothing of each in pixels. ``null`` takes
            ``{ssim: 1.0}``, a sharp map for the smallest defects; ``{}`` is for none.
        feature_errors: Errors of features that count in the map: ``repair``, ``distance`` (from normal features);
            ``null`` for both.
        calibration: ``none``; ``location`` to set errors against those of held-out images at the same place, which
            suits parts that always lie alike; or ``auto``.
        pooling: How the score is taken from the map: ``max``, ``topk`` (mean of the largest) or ``mean``.
        topk_fraction: For ``topk``: the fraction of pixels that counts, in (0, 1].
        false_positive_rate: Fraction of normal images that may be called anomalous, in (0, 0.5]. Then the thresholds
            come from normal validation images alone, and no defects are needed; have the datamodule split some off:
            ``--data.val_split_mode from_train --data.val_split_ratio 0.2``. ``null`` takes the thresholds of the best
            F1 (anomalib's), which needs defects among the validation images. Not used if a ``post_processor`` is given.
        image_size: Side, in pixels, of the square that images are resized to; ``null`` takes 256 with features, else
            128. With features, pixels are repaired at half of it. Larger ones show smaller defects and take longer; let
            ``smoothing`` grow with them. Not used if a ``pre_processor`` is given.
        seed: Seed of weights, shuffling and training; two runs with the same seed give identical weights on the CPU.
            ``null`` takes torch's global state. Use this instead of ``--seed_everything``, which anomalib ignores. If
            validation images are split off at random, the datamodule has a ``seed`` of its own.
        pre_processor: Pre-processor, or ``true`` for resizing only. Images must stay in [0, 1]: do not normalise.
        post_processor: Post-processor, or ``true`` for :class:`~anomalib_lamp.post_processing.OddsPostProcessor`.
        evaluator: Evaluator, or ``true`` for anomalib's metrics.
        visualizer: Visualizer, or ``true`` for pictures with the reconstruction.

    Raises:
        ValueError: If an argument is unknown or out of range, or the packaged weights are not of the backbone.

    Example:
        >>> model = LampAE(targets="pixels", base_loss="l1", optimizer="adamw", max_steps=500, seed=0)
        >>> model.name
        'LampAE'

    Source: Park et al., "Neural Network Training Strategy to Enhance Anomaly Detection Performance: A Perspective on
    Reconstruction Loss Amplification", 2023, https://arxiv.org/abs/2308.14595
    """

    def __init__(
        self,
        targets: str = "pixels+features",
        architecture: str = "unet",
        width: int = 16,
        depth: int = 4,
        skip_connections: bool = True,
        latent_channels: int = 64,
        backbone: str = "tf_efficientnet_lite0",
        weights: str = "packaged",
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
        max_steps: int = 1400,
        mixed_precision: bool = True,
        map_metric: str = MAP_METRIC,
        smoothing: float = 2.5,
        sharp_maps: dict[str, float] | None = None,
        feature_errors: list[str] | None = None,
        calibration: str = "auto",
        pooling: str = "max",
        topk_fraction: float = 0.001,
        false_positive_rate: float | None = None,
        image_size: int | None = None,
        seed: int | None = None,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        side = image_size or (self.default_image_size if "features" in targets else PIXELS_ONLY_IMAGE_SIZE)
        if pre_processor is True:
            pre_processor = self.configure_pre_processor((side, side))
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
        check_source(weights, backbone)
        with seeded_weights(seed):
            self.model: LampAEModel = LampAEModel(
                targets=targets,
                architecture=architecture,
                width=width,
                depth=depth,
                skip_connections=skip_connections,
                latent_channels=latent_channels,
                backbone=backbone,
                image_size=self.input_size or (side, side),
                map_metric=map_metric,
                smoothing=smoothing,
                sharp_maps=sharp_maps,
                feature_errors=feature_errors,
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
        self.resume_points = ResumePoints()
        self.held_out = HeldOutImages(fraction=0.125, at_least=4, enough=8, at_most=100, seed=seed)
        self.loss: LampLoss = LampLoss(base=base_loss, amplify=amplify, reduction=reduction)
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.max_steps = max_steps
        self.mixed_precision = mixed_precision
        self.seed = seed
        self.weights = weights
        self.feature_memory = (
            FeatureMemory(self.model.features, self.held_out, self._load_weights) if self.model.features else None
        )

    def _load_weights(self) -> None:
        """Load the backbone's weights from where they come from."""
        if self.model.features is not None:
            self.model.features.features.backbone.load_weights(self.weights)

    def configure_callbacks(self) -> Sequence[Callback]:
        """Return anomalib's callbacks, and those that make up a training, in the order in which they act."""
        return [
            *super().configure_callbacks(),  # type: ignore[misc]
            *self.shared_callbacks(self.max_steps, validations=2, seed=self.seed),
            self.held_out,
            *self._pixel_callbacks(),
            *self._feature_callbacks(),
            CalibrateMaps(self.model, self.held_out, self.calibrations, self.feature_memory),
            self.resume_points,
        ]

    def _pixel_callbacks(self) -> list[Callback]:
        if self.model.network is None:
            return []
        average = BestAverage(
            "pixels", self.model.network, self._pixel_samples, self.corruption, self._checked_loss, self.shift.adapt
        )
        return [self.shift, average]

    def _feature_callbacks(self) -> list[Callback]:
        branch, memory = self.model.features, self.feature_memory
        if branch is None or memory is None:
            return []
        return [memory, BestAverage("features", branch.repair, memory.samples, branch.damaged, self._feature_loss)]

    def _pixel_samples(self, pl_module: LightningModule, at_most: int) -> tuple[Tensor, Tensor]:
        """Return held-out and learnt images at the resolution at which pixels are repaired."""
        held_out, learnt = self.held_out.samples(pl_module, at_most)
        return (self.model.reduced(held_out), self.model.reduced(learnt)) if len(held_out) else (held_out, learnt)

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
        share = share_of_batch(self, len(images))
        if not len(images):
            return zero_loss(self)
        losses = []
        if self.model.network is not None:
            losses.append(self._learn_pixels(self.shift(self.model.reduced(images))))
        if self.feature_memory is not None:
            losses.append(self._learn_features(self.feature_memory.draw(FEATURES_PER_STEP)))
        loss = torch.stack(losses).sum()
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True, batch_size=len(images))
        self.log("learning_rate", self.optimizers().param_groups[0]["lr"], on_step=True)  # type: ignore[union-attr]
        return share * loss

    def _learn_pixels(self, images: Tensor) -> Tensor:
        """Return the loss of the repair of damaged images."""
        damaged = self.corruption(images)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._in_bfloat16):
            reconstruction = self.model.repair_pixels(damaged)
        self._require_finite(reconstruction)
        error = self.loss.base_error(reconstruction, images)
        self.log("train_base_error", error.mean(), on_step=True, on_epoch=True, batch_size=len(images))
        self.log("shift_reach", self.shift.reach, on_step=True)
        return self.loss.reduce(error)

    def _learn_features(self, target: Tensor) -> Tensor:
        """Return the loss of the repair of damaged features."""
        branch: FeatureBranch = self.model.features  # type: ignore[assignment]
        damaged = branch.damaged(target)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._in_bfloat16):
            repaired = branch.repair(damaged)
        error = self._feature_error(at_least_float32(repaired), target)
        self.log("train_feature_error", error.mean(), on_step=True, on_epoch=True, batch_size=len(target))
        return self.loss.reduce(error)

    def _feature_error(self, repaired: Tensor, target: Tensor) -> Tensor:
        """Return the error at every location, (N, h, w)."""
        self._require_finite(repaired)
        branch: FeatureBranch = self.model.features  # type: ignore[assignment]
        return branch.repair_error(repaired, target)

    def _feature_loss(self, repaired: Tensor, target: Tensor) -> Tensor:
        """Return the loss of features repaired by the averaged weights."""
        return self.loss.reduce(self._feature_error(repaired, target))

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
        return configure_optimizer(
            [parameter for parameter in self.model.parameters() if parameter.requires_grad],
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            total_steps=self.trainer.estimated_stepping_batches,
            summed_elements=self._elements() if self.loss.reduction == "sum" else 1,
        )

    def _elements(self) -> int:
        """Return over how many errors of an image the loss is summed."""
        height, width = self.input_size or (self.default_image_size, self.default_image_size)
        if self.model.network is not None:
            return 3 * height * width // self.model.pixel_reduction**2
        return math.prod(self.model.features.features.coarse_shape[1:])  # type: ignore[union-attr]

    @classmethod
    def configure_visualizer(cls) -> ReconstructionVisualizer:
        """Return a visualizer that shows the reconstruction."""
        return ReconstructionVisualizer(text_config={"size": 18})
