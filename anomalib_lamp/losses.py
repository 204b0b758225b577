"""LampLoss: a reconstruction loss with loss amplification (LAMP); the formulas are in functional."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from anomalib_lamp.functional import (
    ERRORS,
    amplify,
    at_least_float32,
    check_eps,
    check_pair,
    check_unit,
    reconstruction_error,
)

NOT_A_LOSS = {"chroma"}  # ignores brightness
REDUCTIONS = ("sum", "mean", "none")


class LampLoss(nn.Module):
    r"""Amplified reconstruction loss :math:`\sum_{h,w,c} -\log(1 - L(y_{hwc}, \hat y_{hwc}))`, mean over the batch.

    With ``amplify=False`` it is the base loss at the same reduction. Compare LAMP with that: between mean and sum the
    gradient differs by a factor H * W * C.

    Args:
        base: Name of the element-wise base error :math:`L` (``l1``, ``l2``, ``ssim``, ``msgms``), or a callable or
            module ``(reconstruction, target) -> error`` with element-wise errors in [0, 1].
        amplify: Whether to amplify the base error; ``False`` gives the base loss.
        reduction: ``sum`` over all elements of an image, then mean over the batch (the paper's); ``mean`` over all
            elements; ``none`` for the error per element.
        eps: Errors are clamped to ``1 - eps``, since the logarithm diverges at 1; in [1e-6, 1).

    Shape:
        ``reconstruction`` and ``target``: (N, C, H, W); for ``l1`` and ``l2`` any shape, batch first. Floating point,
        values in [0, 1]. Returns a scalar, or the error's shape with ``reduction="none"``; float32 at least.

    Raises:
        TypeError: If a tensor is not floating point, or ``base`` is neither a name nor callable.
        ValueError: If an argument is unknown, shapes differ, or values are missing, not finite or outside [0, 1].
            Inside ``torch.compile`` values are not checked.

    Example:
        >>> loss = LampLoss(base="l1")
        >>> loss(torch.full((2, 3, 8, 8), 0.5), torch.zeros(2, 3, 8, 8))  # 192 elements, each -log(1 - 0.5)
        tensor(133.0842)

    Source: Park et al. 2023, https://arxiv.org/abs/2308.14595, Eq. 1.
    """

    def __init__(
        self,
        base: str | Callable[[Tensor, Tensor], Tensor] = "l2",
        amplify: bool = True,
        reduction: str = "sum",
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if not callable(base) and not isinstance(base, str):
            msg = f"Expected base to be a name from {base_names()} or a callable, got {type(base).__name__}."
            raise TypeError(msg)
        if isinstance(base, str) and base not in base_names():
            msg = f"Expected base to be one of {base_names()} or a callable, got {base!r}."
            raise ValueError(msg)
        if reduction not in REDUCTIONS:
            msg = f"Expected reduction to be one of {list(REDUCTIONS)}, got {reduction!r}."
            raise ValueError(msg)
        check_eps(eps)
        self.base = base
        self.amplify = amplify
        self.reduction = reduction
        self.eps = eps

    def forward(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Return the loss of ``reconstruction`` against ``target``."""
        return self.reduce(self.base_error(reconstruction, target))

    def base_error(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Return the element-wise base error in [0, 1], not amplified, after checking the tensors."""
        check_pair(reconstruction, target)
        check = not torch.compiler.is_compiling()
        if check:
            check_unit("reconstruction", reconstruction, "End the network with a sigmoid or clamp its output.")
            check_unit("target", target, "Scale images to [0, 1]; do not normalise them by mean and deviation.")
        if isinstance(self.base, str):
            return reconstruction_error(reconstruction, target, self.base)
        error = self.base(reconstruction, target)
        if error.shape != target.shape:
            msg = (
                f"Expected the base to return one error per element, shape {tuple(target.shape)}, "
                f"got shape {tuple(error.shape)}. Do not reduce inside the base; LampLoss does."
            )
            raise ValueError(msg)
        if check:
            check_unit("base error", error, "Scale or clamp what the base returns; LAMP takes the log of 1 - error.")
        return error

    def reduce(self, error: Tensor) -> Tensor:
        """Return the loss of element-wise base errors: amplified if asked for, then reduced."""
        error = amplify(error, self.eps) if self.amplify else at_least_float32(error)
        if self.reduction == "none":
            return error
        if self.reduction == "mean":
            return error.mean()
        return error.sum() / (len(error) if error.ndim else 1)

    def extra_repr(self) -> str:
        """Return the arguments for ``print``."""
        base = repr(self.base) if isinstance(self.base, str) else "<callable>"
        return f"base={base}, amplify={self.amplify}, reduction={self.reduction!r}, eps={self.eps}"


def base_names() -> list[str]:
    """Return the names of the errors that a network can be trained with.

    Example:
        >>> base_names()
        ['l1', 'l2', 'msgms', 'ssim']
    """
    return sorted(ERRORS.keys() - NOT_A_LOSS)
