"""Closures: the loss of a module as a function of its weights, by one or several rulers, without moving the module."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

Closure = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def closure_of(module: nn.Module, inputs: Tensor | tuple, rulers: Callable[..., Mapping[str, Tensor]]) -> Closure:
    """Return the losses of a module as a function of its weights.

    The module is called with the weights that the closure is given and with copies of its buffers, so that neither its
    weights nor the statistics of its norms change. It is called in the mode that it is in.

    Args:
        module: Any module.
        inputs: What it is called with: a tensor, or a tuple of arguments.
        rulers: Called with what the module returns; returns scalars by the names of the rulers. Several rulers share a
            forward pass.

    Example:
        >>> layer, x = nn.Linear(2, 1, bias=False), torch.tensor([[1.0, 2.0]])
        >>> closure = closure_of(layer, x, lambda y: {"l1": y.abs().mean(), "l2": y.square().mean()})
        >>> closure({"weight": torch.tensor([[1.0, 1.0]])})
        {'l1': tensor(3.), 'l2': tensor(9.)}
    """
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)

    def closure(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        return rulers(functional_call(module, (dict(weights), buffers), arguments))

    return closure


def losses_at(closure: Closure, weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the losses at some weights as numbers; one that is not finite is NaN.

    Random numbers that the closure draws are the same at every call, and torch's global generators stay as they are.

    Raises:
        TypeError: If the closure does not return a dictionary.
        ValueError: If a loss is not a scalar, or there is none.
    """
    with torch.no_grad():
        losses = checked_losses(closure, weights)
    return {name: value if math.isfinite(value := float(loss)) else math.nan for name, loss in losses.items()}


def checked_losses(closure: Closure, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the losses at some weights as tensors, with gradients if these are recorded; see :func:`losses_at`."""
    with common_random_numbers(weights):
        losses = closure(weights)
    if not isinstance(losses, Mapping):
        msg = f"Expected the closure to return scalars by name, got {type(losses).__name__}. Return {{'loss': ...}}."
        raise TypeError(msg)
    if not losses:
        msg = "Expected the closure to return at least one scalar, got none. Return {'loss': ...}."
        raise ValueError(msg)
    for name, loss in losses.items():
        if isinstance(loss, Tensor) and loss.numel() != 1:
            msg = f"Expected a scalar for {name!r}, got shape {tuple(loss.shape)}. Take its mean in the closure."
            raise ValueError(msg)
    return losses


@contextmanager
def common_random_numbers(weights: Mapping[str, Tensor], seed: int = 0) -> Iterator[None]:
    """Let torch draw the same numbers each time, and leave its global generators as they were."""
    devices = {weight.device for weight in weights.values() if weight.device.type == "cuda"}
    with torch.random.fork_rng(list(devices)):
        torch.manual_seed(seed)
        yield
