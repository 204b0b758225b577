"""Which losses can be amplified, and the errors that they are made of."""

import importlib.metadata
from collections.abc import Callable, Iterable
from typing import NamedTuple

from torch import Tensor, nn

from anomalib_lamp.losses import LampLoss

KNOWN_VERSIONS = ("2.7.0",)  # of anomalib, whose losses were read


class ErrorTerm(NamedTuple):
    """A term of a loss, ``weight * errors.sum()``, before it is amplified.

    Attributes:
        errors: Errors of 0 or more, any shape, float32 at least for accuracy.
        weight: The weight of one error in the loss; ``1 / errors.numel()`` for a mean.
        scale: The number s of :func:`~anomalib_lamp.functional.amplify_on_scale`. Without one, it is taken from the
            first batches.
        bounded: Whether the scale is the largest possible error; a larger one is then refused.
    """

    errors: Tensor
    weight: float
    scale: float | None = None
    bounded: bool = True


Terms = Callable[..., Iterable[ErrorTerm]]


class KnownLoss(NamedTuple):
    """A class of losses, how its terms are computed, and the class of models that it belongs to."""

    loss: type[nn.Module]
    terms: Terms
    model: type[nn.Module] = nn.Module


_registered: list[KnownLoss] = []


def register_loss(loss: type[nn.Module], terms: Terms, model: type[nn.Module] = nn.Module) -> None:
    """Let :func:`~anomalib_lamp.amplify_loss` know a class of losses.

    Args:
        loss: The class; a subclass is another loss.
        terms: Called as ``terms(module, *args, **kwargs)`` with the loss and what it was called with. Returns those
            terms of the loss that are errors of a reconstruction; all others stay as they are.
        model: Only in models of this class. Give it for a loss that has other uses, such as ``nn.MSELoss``.

    Example:
        >>> def mean_of_squares(loss, reconstruction, target):
        ...     errors = (reconstruction - target).square()
        ...     return [ErrorTerm(errors, weight=1 / errors.numel())]
        >>> class MyModel(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.loss = nn.MSELoss()
        >>> register_loss(nn.MSELoss, mean_of_squares, model=MyModel)
        >>> list(losses_of(MyModel()))
        ['loss']
    """
    _registered.insert(0, KnownLoss(loss, terms, model))


def losses_of(model: nn.Module) -> dict[str, tuple[nn.Module, Terms]]:
    """Return the losses of a model that can be amplified, with their terms, by the names of the modules.

    Raises:
        ValueError: If it has none; the message says why.
        RuntimeError: If its losses are anomalib's, in a version that is not known.
    """
    found = _find(model, _registered) or _find(model, _losses_of_anomalib())
    if not found:
        raise ValueError(f"Expected a model with a reconstruction loss, got {type(model).__name__}. {_reason(model)}")  # noqa: EM102
    return found


def reason_against(model: type[nn.Module]) -> str | None:
    """Return why models of a class of anomalib cannot be amplified, or ``None`` if they can.

    Raises:
        RuntimeError: If anomalib's version is not known.
    """
    if any(issubclass(model, known.model) for known in _losses_of_anomalib()):
        return None
    from .anomalib_losses import WITHOUT_RECONSTRUCTION

    names = [cls.__name__ for cls in model.__mro__]
    reasons = (f"{name} {WITHOUT_RECONSTRUCTION[name]}." for name in names if name in WITHOUT_RECONSTRUCTION)
    return next(reasons, f"{model.__name__} is not a model of anomalib {' or '.join(KNOWN_VERSIONS)}.")


def _find(model: nn.Module, known_losses: list[KnownLoss]) -> dict[str, tuple[nn.Module, Terms]]:
    """Return the known losses among the modules of a model, without those inside of others."""
    found: dict[str, tuple[nn.Module, Terms]] = {}
    for name, module in model.named_modules():
        for known in known_losses:
            inside = any(name.startswith(f"{outer}.") for outer in found)
            if type(module) is known.loss and isinstance(model, known.model) and not inside:
                found.setdefault(name, (module, known.terms))
    return found


def _losses_of_anomalib() -> list[KnownLoss]:
    """Return the losses of anomalib's models; imported here, as another version may not have them."""
    version = importlib.metadata.version("anomalib")
    if version not in KNOWN_VERSIONS:
        msg = (
            f"Expected anomalib {' or '.join(KNOWN_VERSIONS)}, whose losses are known, got {version}. Install one of "
            "these, or register the loss with anomalib_lamp.amplification.register_loss."
        )
        raise RuntimeError(msg)
    from .anomalib_losses import LOSSES

    return LOSSES


def _reason(model: nn.Module) -> str:
    if any(isinstance(module, LampLoss) for module in model.modules()):
        return "Its loss is LampLoss, which amplifies by itself; see its argument `amplify`."
    return (
        f"{reason_against(type(model))} A loss that is a module of the model can be added with "
        "anomalib_lamp.amplification.register_loss."
    )
