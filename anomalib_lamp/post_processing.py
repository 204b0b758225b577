"""Post-processing that normalises scores without clipping them."""

import torch
from anomalib.post_processing import PostProcessor
from torch import Tensor


class OddsPostProcessor(PostProcessor):
    r"""Thresholds and normalisation for scores and maps in [0, 1], monotone and with the threshold at 0.5.

    A value :math:`x` becomes its odds relative to the odds of the threshold :math:`t`:

    .. math:: \frac{x (1 - t)}{x (1 - t) + t (1 - x)}

    so 0 stays 0, the threshold becomes 0.5 and 1 stays 1. anomalib's own normalisation clips everything further from
    the threshold than half the range seen in validation; the clipped values become ties, which costs AUROC (most of
    all if validation images are normal and the test images are not). Here only values closer to each other than float32
    resolves become equal: with a threshold of 0.001, near 1, those closer than 0.0001. Arguments are those of
    :class:`anomalib.post_processing.PostProcessor`.

    Example:
        >>> x = torch.tensor([0.0, 0.05, 0.1, 0.4, 1.0])
        >>> OddsPostProcessor._normalize(x, x.min(), x.max(), torch.tensor(0.1))
        tensor([0.0000, 0.3214, 0.5000, 0.8571, 1.0000])
    """

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
        x, t = preds.float(), threshold.float().clamp(1e-6, 1 - 1e-6)
        anomalous = x * (1 - t)
        normalized = anomalous / (anomalous + t * (1 - x))
        return torch.where(torch.isnan(threshold), x, normalized)
