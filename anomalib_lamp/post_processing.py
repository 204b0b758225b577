"""Post-processing that normalises scores without clipping, and thresholds estimated from normal images alone."""

from typing import Any

import torch
from anomalib.data import Batch
from anomalib.metrics import F1AdaptiveThreshold
from anomalib.post_processing import PostProcessor
from lightning.pytorch.utilities import rank_zero_warn
from scipy.stats import t as student
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class NormalThreshold(Metric):
    r"""Threshold that a given fraction of normal images will exceed, estimated from normal images alone.

    The logarithms of the odds of normal scores are taken as normally distributed. The threshold is the upper end of the
    prediction interval of one more of them, :math:`\bar x + t_{n-1} s \sqrt{1 + 1/n}` with Student's :math:`t`. A
    quantile of the scores themselves would need hundreds of images for a rate of 1 %.

    Args:
        field: Field of the batch with values in [0, 1]; of a map, its maximum counts.
        false_positive_rate: Fraction of normal images that may exceed the threshold, in (0, 0.5].

    Raises:
        ValueError: If the rate is out of range.

    Example:
        >>> from anomalib.data import ImageBatch
        >>> scores = torch.tensor([0.10, 0.11, 0.12, 0.13, 0.9])
        >>> labels = torch.tensor([0, 0, 0, 0, 1])
        >>> metric = NormalThreshold("pred_score", false_positive_rate=0.01)
        >>> metric.update(ImageBatch(image=torch.zeros(5, 3, 8, 8), pred_score=scores, gt_label=labels))
        >>> metric.compute()
        tensor(0.1981)
    """

    full_state_update = False
    log_odds: list[Tensor]

    def __init__(self, field: str, false_positive_rate: float) -> None:
        super().__init__()
        if not 0 < false_positive_rate <= 0.5:
            msg = f"Expected false_positive_rate in (0, 0.5], got {false_positive_rate}."
            raise ValueError(msg)
        self.field = field
        self.false_positive_rate = false_positive_rate
        self.add_state("log_odds", default=[], dist_reduce_fx="cat")

    def update(self, batch: Batch) -> None:
        """Record the normal images of a batch."""
        values = getattr(batch, self.field)
        if values is not None and batch.gt_label is not None:
            normal = values[batch.gt_label == 0].float()
            self.log_odds.append(torch.logit(normal.flatten(1).amax(1) if normal.ndim > 1 else normal, eps=1e-6))

    def compute(self) -> Tensor:
        """Return the threshold, or NaN for fewer than two normal images."""
        log_odds = dim_zero_cat(self.log_odds) if len(self.log_odds) else torch.zeros(0)  # synchronised: one tensor
        count = len(log_odds)
        if count < 2:
            rank_zero_warn(
                f"Expected at least 2 normal validation images for a false positive rate, got {count}: there is no "
                "threshold. Split some off the training images: --data.val_split_mode from_train "
                "--data.val_split_ratio 0.2."
            )
            return torch.tensor(torch.nan)
        deviations = student.ppf(1 - self.false_positive_rate, count - 1) * (1 + 1 / count) ** 0.5
        return torch.sigmoid(log_odds.mean() + deviations * log_odds.std())


class MidpointF1Threshold(F1AdaptiveThreshold):
    """Threshold of the best F1, halfway between the lowest value called anomalous and the next lower one.

    anomalib's is that lowest value itself, which its comparison with ``>`` then calls normal.

    Example:
        >>> from anomalib.data import ImageBatch
        >>> scores, labels = torch.tensor([0.1, 0.2, 0.3, 0.9]), torch.tensor([0, 0, 0, 1])
        >>> metric = MidpointF1Threshold(fields=["pred_score", "gt_label"])
        >>> metric.update(ImageBatch(image=torch.zeros(4, 3, 8, 8), pred_score=scores, gt_label=labels))
        >>> metric.compute()
        tensor(0.6000)
    """

    def compute(self) -> Tensor:  # type: ignore[override]
        """Return the threshold; anomalib's if only one class is present."""
        lowest = super().compute()
        values, truth = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        lower = values[values < lowest]
        if truth.all() or not truth.any() or not len(lower):
            return lowest
        return (lowest + lower.max()) / 2


class OddsPostProcessor(PostProcessor):
    r"""Thresholds and normalisation for scores and maps in [0, 1], monotone and with the threshold at 0.5.

    A value :math:`x` becomes its odds relative to the odds of the threshold :math:`t`:

    .. math:: \frac{x (1 - t)}{x (1 - t) + t (1 - x)}

    so 0 stays 0, the threshold becomes 0.5 and 1 stays 1. anomalib's own normalisation clips values farther from the
    threshold than half the range seen in validation. Clipped values are ties, which lowers the AUROC, most of all if
    the validation images are all normal. Here only values that float32 does not resolve become equal: with a threshold
    of 0.001, near 1, those closer than 0.0001.

    Args:
        false_positive_rate: Fraction of normal images that may be called anomalous, in (0, 0.5]. Then the thresholds
            come from the normal validation images alone (:class:`NormalThreshold`); a good image's mask is empty as
            often. ``null`` takes the thresholds with the best F1 on the validation images, which needs defects there.
        enable_normalization: Whether to normalise scores and maps.
        enable_thresholding: Whether to give labels and masks.
        enable_threshold_matching: Whether a missing threshold is taken from the other level, image or pixel.
        image_sensitivity: Sensitivity of labels in [0, 1]; 0.5 is at the threshold, more finds more.
        pixel_sensitivity: The same for masks.

    Example:
        >>> post_processor = OddsPostProcessor(false_positive_rate=0.01)
        >>> post_processor.false_positive_rate
        0.01
    """

    def __init__(
        self,
        false_positive_rate: float | None = None,
        enable_normalization: bool = True,
        enable_thresholding: bool = True,
        enable_threshold_matching: bool = True,
        image_sensitivity: float = 0.5,
        pixel_sensitivity: float = 0.5,
    ) -> None:
        super().__init__(
            enable_normalization=enable_normalization,
            enable_thresholding=enable_thresholding,
            enable_threshold_matching=enable_threshold_matching,
            image_sensitivity=image_sensitivity,
            pixel_sensitivity=pixel_sensitivity,
        )
        self.false_positive_rate = false_positive_rate
        self._set_threshold_metrics()

    def _set_threshold_metrics(self) -> None:
        if self.false_positive_rate is None:
            self._image_threshold_metric = MidpointF1Threshold(fields=["pred_score", "gt_label"], strict=False)
            self._pixel_threshold_metric = MidpointF1Threshold(fields=["anomaly_map", "gt_mask"], strict=False)
        else:
            self._image_threshold_metric = NormalThreshold("pred_score", self.false_positive_rate)  # type: ignore[assignment]
            self._pixel_threshold_metric = NormalThreshold("anomaly_map", self.false_positive_rate)  # type: ignore[assignment]

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore what ``checkpoint_config`` returned.

        Args:
            config: The configuration.
        """
        super().load_checkpoint_config(config)
        self._set_threshold_metrics()

    @property
    def _checkpoint_config_keys(self) -> tuple[str, ...]:
        return (*super()._checkpoint_config_keys, "false_positive_rate")

    @staticmethod
    def _normalize(
        preds: Tensor | None,
        norm_min: Tensor,  # noqa: ARG004  the signature is anomalib's
        norm_max: Tensor,  # noqa: ARG004
        threshold: Tensor,
    ) -> Tensor | None:
        """Return ``preds`` normalised; unchanged while there is no threshold (no validation has run)."""
        if preds is None:
            return None
        return torch.where(torch.isnan(threshold), preds.float(), relative_odds(preds, threshold))


def relative_odds(x: Tensor, threshold: Tensor) -> Tensor:
    r"""Return values normalised to their odds relative to those of a threshold: see :class:`OddsPostProcessor`.

    Args:
        x: Values in [0, 1], any shape.
        threshold: Threshold in [0, 1], which becomes 0.5; kept 1e-6 away from 0 and 1.

    Returns:
        Values in [0, 1], float32, of the shape of ``x``.

    Example:
        >>> relative_odds(torch.tensor([0.0, 0.05, 0.1, 0.4, 1.0]), torch.tensor(0.1))
        tensor([0.0000, 0.3214, 0.5000, 0.8571, 1.0000])
    """
    x, t = x.float(), threshold.float().clamp(1e-6, 1 - 1e-6)
    anomalous = x * (1 - t)
    return anomalous / (anomalous + t * (1 - x))
