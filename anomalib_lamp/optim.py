"""Optimisers and learning-rate schedules by name."""

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn, optim

logger = logging.getLogger(__name__)

DEFAULT_LEARNING_RATES = {"adam": 1e-3, "adamw": 1e-3, "rmsprop": 5e-4, "sgd": 0.5}
SCHEDULES = ("constant", "cosine")
WARM_UP_FRACTION = 0.05  # of all steps


def configure_optimizer(
    parameters: Iterable[nn.Parameter],
    optimizer: str = "adam",
    learning_rate: float | None = None,
    schedule: str = "cosine",
    total_steps: float = math.inf,
    summed_elements: int = 1,
) -> OptimizerLRSchedulerConfig:
    """Return an optimiser with its per-step schedule, in Lightning's form.

    Args:
        parameters: What to optimise.
        optimizer: ``adam``, ``adamw``, ``rmsprop`` or ``sgd`` (momentum 0.9).
        learning_rate: Peak learning rate, larger than 0; ``None`` takes the optimiser's default. SGD's step grows with
            the gradient, so its default is divided by ``summed_elements``; the others are invariant to scale.
        schedule: ``constant``, or ``cosine``: linear warm-up over 5 % of the steps, then half a cosine to 0.
        total_steps: Steps of the whole training. If infinite, the schedule is constant.
        summed_elements: How many elements the loss sums over.

    Raises:
        ValueError: If a name is unknown or the learning rate is not positive.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> configure_optimizer(layer.parameters(), "sgd", total_steps=100)["optimizer"].defaults["lr"]
        0.5
    """
    check_optimizer_arguments(optimizer, learning_rate, schedule)
    if learning_rate is None:
        learning_rate = DEFAULT_LEARNING_RATES[optimizer] / (summed_elements if optimizer == "sgd" else 1)

    options: dict[str, Any] = {"momentum": 0.9} if optimizer == "sgd" else {}
    if optimizer in ("adam", "adamw"):
        options["fused"] = True  # one pass over the weights: on two cores less than half of the time
    classes = {"adam": optim.Adam, "adamw": optim.AdamW, "rmsprop": optim.RMSprop, "sgd": optim.SGD}
    optimizer_ = classes[optimizer](parameters, lr=learning_rate, **options)

    if schedule == "cosine" and math.isinf(total_steps):
        logger.warning("Training without a limit of steps or epochs: the learning rate stays constant.")
    scale = cosine_scale(int(total_steps)) if schedule == "cosine" and math.isfinite(total_steps) else lambda _: 1.0
    scheduler = optim.lr_scheduler.LambdaLR(optimizer_, scale)
    return {"optimizer": optimizer_, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def check_optimizer_arguments(optimizer: str, learning_rate: float | None, schedule: str) -> None:
    """Raise ValueError if a name is unknown or the learning rate is not positive; called before training too."""
    if optimizer not in DEFAULT_LEARNING_RATES:
        msg = f"Expected optimizer to be one of {sorted(DEFAULT_LEARNING_RATES)}, got {optimizer!r}."
        raise ValueError(msg)
    if schedule not in SCHEDULES:
        msg = f"Expected schedule to be one of {list(SCHEDULES)}, got {schedule!r}."
        raise ValueError(msg)
    if learning_rate is not None and not learning_rate > 0:
        msg = f"Expected learning_rate to be larger than 0, got {learning_rate}."
        raise ValueError(msg)


def cosine_scale(total_steps: int) -> Callable[[int], float]:
    """Return the factor of the learning rate at a step: up to 1 within the warm-up, then half a cosine down to 0.

    Args:
        total_steps: Steps of the whole training.

    Example:
        >>> scale = cosine_scale(100)
        >>> [round(scale(step), 3) for step in (0, 4, 5, 52, 100)]
        [0.2, 1.0, 1.0, 0.508, 0.0]
    """
    warm_up = max(1, round(WARM_UP_FRACTION * total_steps))

    def scale(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total_steps - warm_up)))

    return scale
