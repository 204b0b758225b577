"""FineTunedGaussian: Gaussians of normal features, and a backbone fine-tuned to them, as an anomalib model."""

from collections.abc import Sequence
from typing import Any

from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import STEP_OUTPUT, OptimizerLRScheduler

from anomalib_lamp.backbone import check_source
from anomalib_lamp.callbacks import HeldOutImages, ResumePoints
from anomalib_lamp.callbacks.held_out import zero_loss
from anomalib_lamp.models.host import HostDefaults, seeded_weights
from anomalib_lamp.optim import check_optimizer_arguments, configure_optimizer

from .augmentation import AUGMENTATIONS
from .fine_tuning import FineTuning, FitGaussians
from .torch_model import FineTunedGaussianModel


class FineTunedGaussian(HostDefaults, AnomalibModule):
    """Gaussians of pre-trained features of normal images, and features fine-tuned towards them.

    Stage 1 fits one Gaussian to the spatial mean of every level of the frozen backbone; the score is the sum of the
    Mahalanobis distances. Stage 2 fine-tunes the backbone, batch norm in evaluation mode, with that distance of normal
    images as the loss; the Gaussians stay as they are. Both run in one training. It stops at the onset of forgetting:
    when held-out normal images are no longer told apart better from augmented ones. The best weights are kept.

    Left open by the paper and chosen here: the loss is the score's own distance, not its square; Adam at 1e-5; the
    augmentations and their strength; a fifth of the training images, at most 32, are held out from fitting and
    fine-tuning (the test images are not touched); the separation is the AUROC of normal distributions fitted to the
    logarithms of the distances, since the counted AUROC reaches 1 too early; the anomaly map (a mean per location, one
    covariance per level, fitted anew after stage 2). Deviates from the authors' earlier frozen model, which
    ``fine_tune=False`` gives: 256 pixels a side, score squashed into [0, 1), and EfficientNet-Lite0 instead of -B4,
    because its ImageNet weights are installed with this package.

    Args:
        backbone: Name of a convolutional timm network.
        layers: Names of its modules whose outputs are the levels. ``null`` takes stem, stages and head of EfficientNet
            and its relatives, of other networks the levels that timm lists.
        weights: What fitting starts from: ``packaged`` (ImageNet weights that are installed with this package, of
            ``tf_efficientnet_lite0`` only), ``timm`` (timm's own of any network, which it may have to download),
            ``random``, or a local file of weights with timm's names, ``.safetensors`` or ``.pth``. Loading, testing
            and exporting a checkpoint needs none of them.
        fine_tune: Whether to fine-tune. If not, the Gaussians are fitted to all training images, and that is all.
        augmentations: What held-out images are compared with: some of ``cutout``, ``augmix``, ``confetti``; ``null``
            for all.
        learning_rate: Peak learning rate of Adam.
        schedule: ``cosine`` (linear warm-up over 5 % of the steps, then half a cosine to 0) or ``constant``.
        max_steps: Budget of fine-tuning in optimisation steps, used if neither the number of epochs nor of steps is
            given to the trainer.
        check_every: Steps between two looks at the held-out images.
        patience: How many looks in a row may show nothing better before fine-tuning stops.
        smoothing: Standard deviation, in pixels, of the Gaussian that smooths the map; 0 for none.
        false_positive_rate: Fraction of normal images that may be called anomalous, in (0, 0.5]. Then the thresholds
            come from normal validation images alone, and no defects are needed; have the datamodule split some off:
            ``--data.val_split_mode from_train --data.val_split_ratio 0.2``. ``null`` takes the thresholds of the best
            F1 (anomalib's), which needs defects among the validation images. Not used if a ``post_processor`` is given.
        image_size: Side, in pixels, of the square that images are resized to. Not used if a ``pre_processor`` is given.
        seed: Seed of weights, held-out images and shuffling; two runs with the same seed give identical weights on the
            CPU. ``null`` takes torch's global state.
        pre_processor: Pre-processor, or ``true`` for resizing only. Images must stay in [0, 1]: do not normalise.
        post_processor: Post-processor, or ``true`` for :class:`~anomalib_lamp.post_processing.OddsPostProcessor`.
        evaluator: Evaluator, or ``true`` for anomalib's metrics.
        visualizer: Visualizer, or ``true`` for anomalib's with a picture of its own for every image.

    Raises:
        ValueError: If an argument is unknown or out of range, or the packaged weights are not of the backbone.

    Example:
        >>> model = FineTunedGaussian(image_size=64, seed=0)
        >>> model.name
        'FineTunedGaussian'

    Source: Rippel et al., "Transfer Learning Gaussian Anomaly Detection by Fine-tuning Representations", 2021,
    https://arxiv.org/abs/2108.04116; the frozen model: Rippel et al. 2020, https://arxiv.org/abs/2005.14140
    """

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        layers: list[str] | None = None,
        weights: str = "packaged",
        fine_tune: bool = True,
        augmentations: list[str] | None = None,
        learning_rate: float = 1e-5,
        schedule: str = "cosine",
        max_steps: int = 200,
        check_every: int = 10,
        patience: int = 3,
        smoothing: float = 4.0,
        false_positive_rate: float | None = None,
        image_size: int = HostDefaults.default_image_size,
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
        for name, value in {"max_steps": max_steps, "check_every": check_every, "patience": patience}.items():
            if value < 1:
                msg = f"Expected {name} to be at least 1, got {value}."
                raise ValueError(msg)
        check_optimizer_arguments("adam", learning_rate, schedule)
        self.augmentations = list(AUGMENTATIONS) if augmentations is None else list(augmentations)
        if not self.augmentations or set(self.augmentations) - set(AUGMENTATIONS):
            msg = f"Expected augmentations from {list(AUGMENTATIONS)}, got {augmentations}."
            raise ValueError(msg)
        check_source(weights, backbone)
        with seeded_weights(seed):
            self.model: FineTunedGaussianModel = FineTunedGaussianModel(
                backbone=backbone,
                layers=layers,
                image_size=self.input_size or (image_size, image_size),
                smoothing=smoothing,
            )
        self.weights = weights
        self.fine_tune = fine_tune
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.max_steps = max_steps if fine_tune else 1
        self.seed = seed
        self.resume_points = ResumePoints()
        self.held_out = HeldOutImages(fraction=0.2, at_least=2, at_most=32 if fine_tune else 0, seed=seed)
        self.fine_tuning = FineTuning(self.model, self.held_out, self.augmentations, check_every, patience)

    def configure_callbacks(self) -> Sequence[Callback]:
        """Return anomalib's callbacks, and those that make up a training, in the order in which they act."""
        return [
            *super().configure_callbacks(),  # type: ignore[misc]
            *self.shared_callbacks(self.max_steps, validations=1, seed=self.seed),
            self.held_out,
            FitGaussians(self.model, self.held_out, self.load_weights),
            self.fine_tuning,
            self.resume_points,
        ]

    def load_weights(self) -> None:
        """Load the backbone's weights from where they are to come from."""
        self.model.backbone.load_weights(self.weights)

    def training_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Return the mean distance of a batch's images, without those held out; 0 if the backbone stays frozen.

        Args:
            batch: Batch of images without defects, in [0, 1].
            *args: Not used.
            **kwargs: Not used.
        """
        del args, kwargs
        images = self.held_out.to_learn(batch)
        if self.fine_tuning.learner is None or not len(images):
            return zero_loss(self)
        loss = self.fine_tuning.distance(images).mean()
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True, batch_size=len(images))
        self.log("separation", self.fine_tuning.separation, on_step=True, prog_bar=True)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return Adam over the copy of the backbone that learns; nothing if the backbone stays frozen.

        The cosine's warm-up matters: Adam's first steps are as large for weights that hardly matter as for those that
        do, which is a blow to the features that the stopping rule would take for forgetting.
        """
        if not self.fine_tune:
            return None
        return configure_optimizer(
            self.fine_tuning.new_learner().parameters(),
            optimizer="adam",
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            total_steps=self.trainer.estimated_stepping_batches,
        )

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Return trainer arguments: one device, since the backbone that learns is a copy outside the module."""
        return {**super().trainer_arguments, "devices": 1}
