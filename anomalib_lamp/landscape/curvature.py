"""Curvature of a loss: extreme eigenvalues, trace and norm of its Hessian, by products with vectors only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from .closure import Closure, checked_losses

FLOAT64_SIZE = 10_000_000  # weights up to which Lanczos works in float64; it keeps 20 vectors
DENSE_SIZE = 64  # weights up to which the Hessian is written down
EIGENVALUE_TOLERANCE = 1e-4

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Spectrum:
    """What is known of a symmetric matrix.

    Attributes:
        largest: The largest eigenvalue; ``None`` if the search for it did not converge.
        smallest: The smallest eigenvalue, the same.
        trace: The trace.
        trace_error: Its standard error; 0 where it is exact.
        norm: The Frobenius norm.
        products: How many products with a vector this took.
    """

    largest: float | None
    smallest: float | None
    trace: float
    trace_error: float
    norm: float
    products: int


class Hessian:
    """Products of the Hessian of a loss with vectors, and its gradient; the graph of the gradient is kept.

    Kinks are not seen: the Hessian of L1 is what the curvature of the network contributes.

    Args:
        closure: Takes weights by name, returns scalars by ruler.
        ruler: Which of them.
        weights: Where; the Hessian is over all of them, in this order, each flattened.

    Attributes:
        loss: The loss.
        gradient: The gradient, in one row.

    Raises:
        ValueError: If there is no such ruler, the loss is not finite, or it has no gradient.

    Example:
        >>> hessian = Hessian(lambda w: {"loss": (w["x"] ** 3).sum()}, "loss", {"x": torch.tensor([1.0, 2.0])})
        >>> hessian.product(torch.tensor([1.0, 1.0]))
        tensor([ 6., 12.])
    """

    def __init__(self, closure: Closure, ruler: str, weights: Mapping[str, Tensor]) -> None:
        self._weights = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
        with torch.enable_grad():
            loss = _chosen(checked_losses(closure, self._weights), ruler)
            if not torch.isfinite(loss):
                msg = f"Expected a finite loss at the weights for {ruler!r}, got {loss.detach()}. Look at the weights."
                raise ValueError(msg)
            gradient = torch.autograd.grad(
                loss, list(self._weights.values()), create_graph=True, materialize_grads=True
            )
            self._gradient = torch.cat([part.reshape(-1) for part in gradient])
        self.loss = float(loss.detach())
        self.gradient = self._gradient.detach()

    def product(self, vector: Tensor) -> Tensor:
        """Return the Hessian times a vector, (P) to (P); 0 for a gradient that does not change with the weights."""
        if not self._gradient.requires_grad:
            return torch.zeros_like(vector)
        products = torch.autograd.grad(
            self._gradient, list(self._weights.values()), vector, retain_graph=True, materialize_grads=True
        )
        return torch.cat([part.reshape(-1) for part in products])

    def scaled_product(self, scale: Tensor) -> tuple[Product, int]:
        """Return the product with ``T H T`` over the weights where the diagonal T is not 0, and their number."""
        places = scale.nonzero().squeeze(1)
        factors = scale[places]

        def product(vector: Tensor) -> Tensor:
            whole = torch.zeros_like(scale).index_copy(0, places, vector * factors)
            return self.product(whole)[places] * factors

        return product, len(places)


def loss_and_gradient(closure: Closure, ruler: str, weights: Mapping[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
    """Return a loss, which need not be finite, and its gradient by the names of the weights."""
    moving = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    with torch.enable_grad():
        loss = _chosen(checked_losses(closure, moving), ruler)
    gradients = torch.autograd.grad(loss, list(moving.values()), materialize_grads=True)
    return float(loss.detach()), dict(zip(moving, gradients, strict=True))


def _chosen(losses: Mapping[str, Tensor], ruler: str) -> Tensor:
    if ruler not in losses:
        msg = f"Expected a ruler from {list(losses)}, got {ruler!r}."
        raise ValueError(msg)
    loss = losses[ruler]
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        msg = f"Expected {ruler!r} to be a tensor with a gradient, got {loss!r}. Compute it from the given weights."
        raise ValueError(msg)
    return loss


def spectrum(product: Product, size: int, like: Tensor, samples: int = 30, seed: int = 0) -> Spectrum:
    """Return extreme eigenvalues, trace and norm of a symmetric matrix that is known by its products with vectors.

    Eigenvalues by Lanczos (ARPACK), the trace by Hutch++, and so the norm, from the trace of the square.
    A matrix of at most 64 rows is written down.

    Args:
        product: The matrix times a vector, (P) to (P).
        size: P.
        like: A tensor whose device and kind of number the vectors have.
        samples: For the trace: number of products, 6 or more; its error falls with their number.
        seed: Seed of the random vectors.

    Example:
        >>> diagonal = torch.tensor([3.0, 1.0, -2.0])
        >>> found = spectrum(lambda vector: diagonal * vector, 3, diagonal)
        >>> round(found.largest, 4), round(found.smallest, 4), round(found.trace, 4), round(found.norm**2, 3)
        (3.0, -2.0, 2.0, 14.0)

    Source: Meyer et al., "Hutch++: Optimal Stochastic Trace Estimation", 2021, https://arxiv.org/abs/2010.09649
    """
    counted = _Counted(product)
    if size <= DENSE_SIZE:
        matrix = torch.stack([counted(row) for row in torch.eye(size).to(like)]).double().cpu().numpy()
        matrix = (matrix + matrix.T) / 2
        values = np.linalg.eigvalsh(matrix)
        trace, norm = float(np.trace(matrix)), float(np.linalg.norm(matrix))
        return Spectrum(float(values[-1]), float(values[0]), trace, 0.0, norm, counted.calls)
    generator = torch.Generator().manual_seed(seed)
    trace, error, norm = _trace_and_norm(counted, size, like, samples, generator)
    if norm == 0:  # ARPACK refuses it
        return Spectrum(0.0, 0.0, 0.0, 0.0, 0.0, counted.calls)
    start = torch.randn(size, generator=generator).numpy()
    largest, smallest = (_eigenvalue(counted, size, like, which, start) for which in ("LA", "SA"))
    return Spectrum(largest, smallest, trace, error, norm, counted.calls)


class _Counted:
    """Counts the products."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self.calls = 0

    def __call__(self, vector: Tensor) -> Tensor:
        self.calls += 1
        return self.product(vector)


def _eigenvalue(product: Product, size: int, like: Tensor, which: str, start: np.ndarray) -> float | None:
    kind = np.float64 if size <= FLOAT64_SIZE else np.float32

    def multiply(vector: np.ndarray) -> np.ndarray:
        return product(torch.from_numpy(vector.ravel()).to(like)).cpu().numpy().astype(kind)

    operator = LinearOperator((size, size), matvec=multiply, dtype=kind)
    try:
        values = eigsh(
            operator, 1, which=which, v0=start.astype(kind), tol=EIGENVALUE_TOLERANCE, return_eigenvectors=False
        )
    except ArpackNoConvergence:
        return None
    return float(values[0])


def _trace_and_norm(
    product: Product, size: int, like: Tensor, samples: int, generator: torch.Generator
) -> tuple[float, float, float]:
    """Return the trace by Hutch++, its standard error, and the Frobenius norm."""
    third = samples // 3

    def signs() -> Tensor:
        return (2.0 * torch.randint(2, (third, size), generator=generator) - 1).to(like)

    basis = torch.linalg.qr(torch.stack([product(vector) for vector in signs()]).T).Q  # (P, third)
    rest = signs()
    rest = rest - (rest @ basis) @ basis.T
    inside, outside = (torch.stack([product(vector) for vector in vectors]) for vectors in (basis.T, rest))
    samples_outside = (rest * outside).double().sum(1)
    trace = (basis.T * inside).double().sum() + samples_outside.mean()
    squares = inside.double().square().sum() + outside.double().square().sum() / third
    return float(trace), float(samples_outside.std() / third**0.5), float(squares.sqrt())
