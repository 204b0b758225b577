"""amplify_loss: amplifies the reconstruction terms of a model's loss while it trains, until the handle is removed."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from anomalib_lamp.functional import amplify_on_scale, multiplier_on_scale

from .registry import ErrorTerm, Terms, losses_of

SAMPLES = 256  # errors of a term and batch from which multipliers are told
MOST_SAMPLES = 100_000  # of terms and batches, for a loop that never asks for the multipliers
LARGE_ERROR = 0.999  # quantile of a batch's errors
ROUNDING = 1e-3  # relative, by which an error may exceed its bound


def amplify_loss(model: nn.Module, amplify: bool = True, first_batches: int = 10) -> "Amplification":
    r"""Amplify the reconstruction terms of a model's loss (LAMP) until the handle that it returns is removed.

    An error e becomes :math:`A_s(e) = -s \log(1 - e / s)`, see :func:`~anomalib_lamp.functional.amplify_on_scale`, on
    the scale s of its largest possible value. Errors without one are taken as they are for the first batches; then s
    is twice their mean 99.9th percentile, and stays so. Other terms of the loss do not change. Losses are amplified
    where gradients are recorded, so not in a validation.

    Args:
        model: A model of anomalib whose loss has reconstruction terms, or any with a loss that was registered.
        amplify: ``False`` leaves the loss as it is, to the bit, and only measures multipliers.
        first_batches: How many batches give the scale of errors without a bound; 1 or more.

    Returns:
        The handle. Call its ``remove`` or use it in a ``with`` statement. Until then the model cannot be pickled.

    Raises:
        ValueError: If the model has no known reconstruction loss or is amplified already, or ``first_batches`` is less
            than 1. Later, in a training step: if an error exceeds its bound, or the first ones give no scale.
        RuntimeError: If the version of anomalib is not known.

    Example:
        >>> from anomalib.models import Fre
        >>> with amplify_loss(Fre(pre_trained=False, backbone="resnet18", input_dim=64), first_batches=1) as handle:
        ...     handle.multipliers() is None  # before any batch
        True

    Source: Park et al. 2023, https://arxiv.org/abs/2308.14595, Eq. 1, here on a scale.
    """
    return Amplification(model, amplify, first_batches)


class Amplification:
    """What :func:`amplify_loss` returns: the amplified losses of a model, until :meth:`remove`."""

    def __init__(self, model: nn.Module, amplify: bool, first_batches: int) -> None:
        if first_batches < 1:
            msg = f"Expected first_batches of 1 or more, got {first_batches}. Use the default 10 if unsure."
            raise ValueError(msg)
        losses = losses_of(model)
        if any(isinstance(hook, _Hook) for loss, _ in losses.values() for hook in loss._forward_hooks.values()):
            msg = f"Expected a {type(model).__name__} that is not amplified, got one that is. Remove its first handle."
            raise ValueError(msg)
        self.amplify = amplify
        self.first_batches = first_batches
        self._large_errors: dict[str, tuple[int, float]] = {}  # batches so far, and the sum of their large errors
        self._multipliers: deque[Tensor] = deque(maxlen=MOST_SAMPLES)
        self._hooks = [
            loss.register_forward_hook(_Hook(name, terms, self), with_kwargs=True)
            for name, (loss, terms) in losses.items()
        ]

    def remove(self) -> None:
        """Leave the model as it was. May be called again."""
        for hook in self._hooks:
            hook.remove()

    def __enter__(self) -> "Amplification":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def multipliers(self) -> tuple[float, float] | None:
        """Return median and 99th percentile of what gradients of errors were multiplied by since the last call.

        They are those of a sample of the errors of every term and batch; ``None`` if nothing was amplified.
        """
        if not self._multipliers:
            return None
        median, p99 = np.quantile(torch.cat(list(self._multipliers)).cpu().numpy(), [0.5, 0.99]).tolist()
        self._multipliers.clear()
        return median, p99

    def scales(self) -> dict[str, float]:
        """Return the scales that were taken from the first batches, by the names of losses and numbers of terms."""
        known = {key: found for key, found in self._large_errors.items() if found[0] >= self.first_batches}
        return {key: 2 * total / batches for key, (batches, total) in known.items()}

    def state_dict(self) -> dict[str, tuple[int, float]]:
        """Return what the scales are computed from, plain numbers."""
        return dict(self._large_errors)

    def load_state_dict(self, state: dict[str, tuple[int, float]]) -> None:
        """Take the scales, or the batches that count towards them, from an earlier training."""
        self._large_errors = dict(state)

    def surplus(self, key: str, term: ErrorTerm) -> Tensor | float:
        """Return what the amplified term is more than the term, and note its multipliers."""
        errors, weight, scale, bounded = term
        if scale is None:
            scale = self._scale_of(key, errors)
            if scale is None:
                return 0.0
        elif bounded:
            _require_bound(key, errors, scale)
        sample = errors.detach().flatten()
        sample = sample[:: len(sample) // SAMPLES | 1]  # odd, so that it meets all columns of an image
        self._multipliers.append(multiplier_on_scale(sample, scale))
        return weight * (amplify_on_scale(errors, scale) - errors).sum()

    def _scale_of(self, key: str, errors: Tensor) -> float | None:
        """Return the scale of errors without a bound, or ``None`` while it is not known; then learn from them."""
        batches, total = self._large_errors.get(key, (0, 0.0))
        if batches >= self.first_batches:
            return 2 * total / batches
        batches, total = batches + 1, total + large_error(errors)
        if batches == self.first_batches:
            total = _mean_of_processes(total, errors.device)
            if not 0 < total < math.inf:
                msg = f"Expected errors above 0 and finite in the first batches, got a sum of {total} for {key}."
                raise ValueError(msg)
        self._large_errors[key] = (batches, total)
        return None


@dataclass(eq=False)
class _Hook:
    """Adds to what a loss returns what its amplified terms are more."""

    name: str
    terms: Terms
    amplification: Amplification

    def __call__(self, loss: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
        if not torch.is_grad_enabled():
            return None
        amplify = self.amplification.amplify
        with torch.set_grad_enabled(amplify), torch.autocast(output.device.type, enabled=False):
            terms = enumerate(self.terms(loss, *args, **kwargs))
            surplus = sum(self.amplification.surplus(f"{self.name}.{number}", term) for number, term in terms)
        return output + surplus if amplify else None

    def __deepcopy__(self, memo: dict) -> "_Hook":
        return self

    def __reduce__(self) -> NoReturn:
        msg = "Expected to save a model that is not amplified; call `remove()` of what amplify_loss returned before."
        raise TypeError(msg)


def _require_bound(key: str, errors: Tensor, bound: float) -> None:
    largest = errors.detach().amax().item()
    if largest > bound * (1 + ROUNDING):
        msg = (
            f"Expected errors of at most {bound:.4g} for {key}, got {largest:.4g}. Use the model's own pre_processor, "
            "or register the loss with another scale, or none: anomalib_lamp.amplification.register_loss."
        )
        raise ValueError(msg)


def large_error(errors: Tensor) -> float:
    """Return the 99.9th percentile of errors."""
    flat = errors.detach().flatten()
    return flat.kthvalue(math.ceil(LARGE_ERROR * len(flat))).values.item()


def _mean_of_processes(value: float, device: torch.device) -> float:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    total = torch.tensor(value, device=device)
    torch.distributed.all_reduce(total)
    return total.item() / torch.distributed.get_world_size()
