"""The area under the ROC curve of two arrays."""

import torch
from numpy.typing import ArrayLike
from sklearn.metrics import roc_auc_score
from torch import Tensor


def auroc(labels: ArrayLike | Tensor, scores: ArrayLike | Tensor) -> float | None:
    """Return how often an anomalous value scores above a normal one, ties counted half; scikit-learn's.

    Args:
        labels: True or 1 for anomalous values, any shape.
        scores: Scores, the same shape.

    Returns:
        In [0, 1]; ``None`` where only one class is present.

    Example:
        >>> auroc([0, 0, 1, 1], [0.1, 0.2, 0.2, 0.9])
        0.875
    """
    truth, values = (torch.as_tensor(array).detach().cpu().numpy().ravel() for array in (labels, scores))
    if truth.all() or not truth.any():
        return None
    return float(roc_auc_score(truth, values))
