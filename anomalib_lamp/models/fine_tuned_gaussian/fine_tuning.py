"""Fine-tuning without anomalies: what is learnt, when to stop, and which weights are kept."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from .augmentation import AUGMENTATIONS
from .torch_model import FineTunedGaussianModel

CHUNK = 16


class StoppingRule:
    """Says when forgetting has set in: when a value has not been the best for a while.

    Args:
        patience: How many checks in a row may bring no new best value.

    Example:
        >>> rule = StoppingRule(patience=2)
        >>> [rule.is_best(value) for value in (0.7, 0.8, 0.8, 0.75)]
        [True, True, False, False]
        >>> rule.stop
        True
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best = -torch.inf
        self.checks_since_best = 0

    def is_best(self, value: float) -> bool:
        """Take note of a value, and return whether it is larger than all before."""
        if value > self.best:
            self.best, self.checks_since_best = value, 0
            return True
        self.checks_since_best += 1
        return False

    @property
    def stop(self) -> bool:
        """Return whether patience is used up."""
        return self.checks_since_best >= self.patience


class FineTuning:
    """Fine-tune a copy of the backbone; the model takes over its weights whenever they are the best so far.

    So the model is the best so far at any time, whatever ends the training.

    Args:
        model: The model, its Gaussians fitted by the time of the first check; they stay fixed.
        patience: How many checks in a row may bring no better separation.

    Example:
        >>> model = FineTunedGaussianModel("resnet18", ["layer1"], image_size=(32, 32))
        >>> images = torch.rand(8, 3, 32, 32)
        >>> model.fit([images[:6]])
        >>> fine_tuning = FineTuning(model)
        >>> fine_tuning.begin(images[6:], ["cutout"])
        >>> fine_tuning.check()
        True
    """

    def __init__(self, model: FineTunedGaussianModel, patience: int = 3) -> None:
        self.model = model
        self.learner = copy.deepcopy(model.backbone).requires_grad_()
        self.rule = StoppingRule(patience)
        self.separation = 0.0
        self.normal = torch.empty(0)
        self.augmented: list[Tensor] = []

    def begin(self, images: Tensor, augmentations: Sequence[str]) -> None:
        """Start from the weights that the model has now; augment the held-out images once, for all checks.

        Args:
            images: Normal images (N, 3, H, W) in [0, 1] that the Gaussians were not fitted to.
            augmentations: Names of the augmentations.
        """
        self.learner.load_state_dict(self.model.backbone.state_dict())
        self.normal = images
        self.augmented = [AUGMENTATIONS[name](images) for name in augmentations]

    def distance(self, images: Tensor) -> Tensor:
        """Return the distance (N) of images by the backbone that learns; its mean over normal images is the loss."""
        return self.model.distance(self.learner(images))

    def check(self) -> bool:
        """Measure the separation; if it is the best so far, the model takes over the weights, and True is returned."""
        normal = self._distances(self.normal)
        self.separation = sum(separation(normal, self._distances(images)) for images in self.augmented)
        self.separation /= len(self.augmented)
        best = self.rule.is_best(self.separation)
        if best:
            self.model.backbone.load_state_dict(self.learner.state_dict())
        return best

    @torch.no_grad()
    def _distances(self, images: Tensor) -> Tensor:
        return torch.cat([self.distance(chunk) for chunk in images.split(CHUNK)])


def separation(normal: Tensor, augmented: Tensor) -> float:
    """Return how well distances of normal and of augmented images are told apart, in [0, 1].

    The AUROC of the two normal distributions fitted to the logarithms of the distances. The counted AUROC reaches 1 as
    soon as the two no longer overlap, which good features do at once; this one goes on to tell better from worse.

    Example:
        >>> separation(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 2.0, 4.0]))
        0.5
    """
    near, far = (distances.cpu().double().clamp(min=1e-12).log() for distances in (normal, augmented))
    spread = (near.var(correction=0) + far.var(correction=0)).sqrt().clamp(min=1e-6)
    return torch.special.ndtr((far.mean() - near.mean()) / spread).item()
