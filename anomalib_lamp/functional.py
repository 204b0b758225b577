"""Pure functions on tensors: errors, their amplification, smoothing, Mahalanobis distance. Imports torch only."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
MSGMS_SCALES = 4
MSGMS_SMALLEST_SIDE = 2**MSGMS_SCALES
TANGENT_FROM = 0.9


def amplify(error: Tensor, eps: float = 1e-6) -> Tensor:
    r"""Return the amplified error :math:`-\log(1 - L)` of an element-wise error :math:`L`.

    Near 0 the amplified error is the error itself (0.01 becomes 0.01005); it grows without bound towards 1 (0.81
    becomes 1.66). The slope is :math:`1 / (1 - L)`.

    The paper leaves the singularity at ``L = 1`` open. Here ``L`` is clamped to ``1 - eps``, so that value and
    gradient stay finite: the largest value is ``-log(eps)``, 13.8 by default, up to the rounding of ``1 - eps``. Beyond
    the clamp the gradient is zero. The logarithm is taken in float32 (float64 for float64 input), also under autocast.

    Args:
        error: Errors in [0, 1], any shape.
        eps: Errors are clamped to ``1 - eps``; in [1e-6, 1). Below 1e-6 float32 does not resolve ``1 - eps`` well.

    Returns:
        Tensor of the shape of ``error``, values in [0, -log(eps)], float32 or float64.

    Raises:
        ValueError: If ``eps`` is outside [1e-6, 1).

    Example:
        >>> amplify(torch.tensor([0.0, 0.5, 1.0]))
        tensor([ 0.0000,  0.6931, 13.8023])

    Source: Park et al., "Neural Network Training Strategy to Enhance Anomaly Detection Performance" (LAMP), Eq. 1,
    https://arxiv.org/abs/2308.14595
    """
    check_eps(eps)
    with torch.autocast(error.device.type, enabled=False):
        return -torch.log1p(-at_least_float32(error).clamp(max=1 - eps))


def amplify_on_scale(error: Tensor, scale: float) -> Tensor:
    r"""Return the amplified error :math:`A_s(e) = -s \log(1 - e / s)` of errors on a scale s.

    On the scale 1 it is :func:`amplify` up to 0.9. Its slope at 0 is 1 on every scale, so small errors keep their
    weight in a loss. Beyond 0.9 s, where the logarithm would diverge, its tangent goes on with the slope 10: errors may
    exceed the scale, and no gradient is zero. Taken in float32 (float64 for float64 input), also under autocast.

    Args:
        error: Errors of 0 or more, any shape.
        scale: The number s, above 0: the largest possible error, or a large one if there is no largest.

    Returns:
        Tensor of the shape of ``error``, never below it, float32 or float64.

    Example:
        >>> amplify_on_scale(torch.tensor([0.01, 1.0, 1.8, 2.0]), scale=2)  # 2 = bound of a cosine distance
        tensor([0.0100, 1.3863, 4.6052, 6.6052])
    """
    with torch.autocast(error.device.type, enabled=False):
        relative = at_least_float32(error) / scale
        bent = relative.clamp(max=TANGENT_FROM)
        return scale * ((relative - bent) / (1 - TANGENT_FROM) - torch.log1p(-bent))


def multiplier_on_scale(error: Tensor, scale: float) -> Tensor:
    """Return the slope of :func:`amplify_on_scale`: by what it multiplies the gradient of an error, 1 to 10.

    Args:
        error: Errors of 0 or more, any shape; less, by rounding, counts as 0.
        scale: The scale of the errors, above 0.

    Example:
        >>> multiplier_on_scale(torch.tensor([0.0, 0.02, 1.0, 2.0]), scale=2)
        tensor([ 1.0000,  1.0101,  2.0000, 10.0000])
    """
    return 1 / (1 - (at_least_float32(error) / scale).clamp(0, TANGENT_FROM))


def reconstruction_error(reconstruction: Tensor, target: Tensor, metric: str = "l2") -> Tensor:
    """Return the element-wise error in [0, 1] between a reconstruction and its target, both in [0, 1].

    ========== ====================================================================== ==============
    metric     error per element                                                      shape
    ========== ====================================================================== ==============
    ``l1``     absolute difference                                                    any
    ``l2``     squared difference                                                     any
    ``ssim``   ``(1 - SSIM) / 2``, see :func:`ssim_error`                             (N, C, H, W)
    ``msgms``  ``1 - GMS``, mean over four scales, see :func:`msgms_error`            (N, C, H, W)
    ``chroma`` difference in colour without brightness, see :func:`chroma_error`      (N, C, H, W)
    ========== ====================================================================== ==============

    Values are not checked here, so that the function can be exported and compiled; :class:`~anomalib_lamp.LampLoss`
    checks them.

    Args:
        reconstruction: What the network returned, floating point.
        target: What it should have returned, same shape.
        metric: Name of the error.

    Returns:
        Tensor of the shape of ``target``, float32 or float64.

    Raises:
        TypeError: If a tensor is not floating point.
        ValueError: If the shapes differ, the metric is unknown, or the images are too small for the metric.

    Example:
        >>> clean, repaired = torch.zeros(1, 3, 16, 16), torch.full((1, 3, 16, 16), 0.5)
        >>> reconstruction_error(repaired, clean, "l2").mean()
        tensor(0.2500)
    """
    if metric not in ERRORS:
        msg = f"Expected metric to be one of {sorted(ERRORS)}, got {metric!r}."
        raise ValueError(msg)
    check_pair(reconstruction, target)
    with torch.autocast(target.device.type, enabled=False):
        return ERRORS[metric](at_least_float32(reconstruction), at_least_float32(target))


def errors_by_metric(reconstruction: Tensor, target: Tensor, metrics: Iterable[str]) -> dict[str, Tensor]:
    """Return the error by every metric, averaged over channels.

    Args:
        reconstruction: Images (N, C, H, W) in [0, 1].
        target: Images of the same shape.
        metrics: Names that :func:`reconstruction_error` takes.

    Returns:
        Errors (N, H, W) in [0, 1] by the names of the metrics.

    Example:
        >>> images = torch.rand(1, 3, 16, 16)
        >>> {name: error.shape for name, error in errors_by_metric(images, images, ["l1", "ssim"]).items()}
        {'l1': torch.Size([1, 16, 16]), 'ssim': torch.Size([1, 16, 16])}
    """
    return {metric: reconstruction_error(reconstruction, target, metric).mean(1) for metric in metrics}


def l1_error(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Return the absolute difference per element."""
    return (reconstruction - target).abs()


def l2_error(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Return the squared difference per element."""
    return (reconstruction - target).square()


def ssim_error(reconstruction: Tensor, target: Tensor) -> Tensor:
    r"""Return :math:`(1 - \text{SSIM}) / 2` per pixel and channel, in [0, 1].

    SSIM as in Wang et al. 2004: Gaussian window of 11 x 11 pixels, sigma 1.5, population covariance, K1 = 0.01,
    K2 = 0.03, data range 1. Images are reflected at the border. Inside it, the map equals scikit-image's
    ``structural_similarity(..., gaussian_weights=True, use_sample_covariance=False, data_range=1)``. The paper does
    not say how SSIM is brought into [0, 1]; its first author's earlier code halves it further, to [0, 0.5].

    The variances are small differences of large numbers: give float32 at least, as :func:`reconstruction_error` does.

    Args:
        reconstruction: Images (N, C, H, W) in [0, 1], H and W at least 11.
        target: Images of the same shape.

    Raises:
        ValueError: If the tensors are not images of at least 11 x 11 pixels.
    """
    _check_size(target, "ssim", SSIM_WINDOW)
    c1, c2 = 0.01**2, 0.03**2
    # Variances do not depend on brightness: taken about the image's mean, they lose fewer digits to cancellation.
    shift = target.mean(dim=(-2, -1), keepdim=True).detach()
    x, y = reconstruction - shift, target - shift
    # One by one: then nothing is kept for gradients of the target's moments.
    mean_x, mean_y, mean_squares, mean_xy = (
        gaussian_blur(moment, SSIM_SIGMA, SSIM_WINDOW) for moment in (x, y, x * x + y * y, x * y)
    )
    variances, cov = mean_squares - mean_x**2 - mean_y**2, mean_xy - mean_x * mean_y
    mean_x, mean_y = mean_x + shift, mean_y + shift
    ssim = ((2 * mean_x * mean_y + c1) * (2 * cov + c2)) / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))
    return ((1 - ssim) / 2).clamp(0, 1)


def msgms_error(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Return one minus the multi-scale gradient magnitude similarity per pixel and channel, in [0, 1].

    Gradient magnitudes (Prewitt) of both images are compared at scales 1, 1/2, 1/4 and 1/8 (average pooling); the
    four maps are enlarged bilinearly and averaged. Responds to structure, hardly to smooth changes of brightness.

    Deviates from RIAD: channels are compared one by one instead of after conversion to grey, so that the error is
    element-wise and includes edges that differ in colour only. The constant 0.0026 is RIAD's.

    Args:
        reconstruction: Images (N, C, H, W) in [0, 1], H and W at least 16.
        target: Images of the same shape.

    Raises:
        ValueError: If the tensors are not images of at least 16 x 16 pixels.

    Source: Xue et al. 2014 (GMSD); Zavrtanik et al. 2021 (RIAD).
    """
    _check_size(target, "msgms", MSGMS_SMALLEST_SIDE)
    x, y = reconstruction, target
    size = target.shape[-2:]
    total = _gms_error(x, y)
    for _ in range(1, MSGMS_SCALES):
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        total = total + F.interpolate(_gms_error(x, y), size=size, mode="bilinear", align_corners=False)
    return total / MSGMS_SCALES


def chroma_error(reconstruction: Tensor, target: Tensor) -> Tensor:
    r"""Return the difference in colour, without brightness, per pixel and channel, in [0, 1 - 1 / C].

    With :math:`d = y - \hat y`, it is :math:`|d_c - \bar d| / 2`, :math:`\bar d` the mean over channels. SSIM and MSGMS
    hardly respond to a stain of the same brightness and texture; this error does. 0 for one channel or grey images.

    Args:
        reconstruction: Images (N, C, H, W) in [0, 1].
        target: Images of the same shape.

    Raises:
        ValueError: If the tensors are not images.

    Example:
        >>> grey, red = torch.full((1, 3, 1, 1), 0.5), torch.tensor([0.8, 0.5, 0.5]).reshape(1, 3, 1, 1)
        >>> chroma_error(red, grey).flatten()
        tensor([0.1000, 0.0500, 0.0500])
    """
    _check_size(target, "chroma", 1)
    difference = reconstruction - target
    return (difference - difference.mean(dim=1, keepdim=True)).abs() / 2


def gaussian_blur(images: Tensor, sigma: float, window: int | None = None) -> Tensor:
    """Return images smoothed by a Gaussian, reflected at the border.

    Rows and columns are smoothed by a matrix product each: on the CPU several times faster than grouped convolutions
    with three channels, most of all backwards. Where ``torch.set_float32_matmul_precision`` allows less than float32,
    the products are taken in float64, since SSIM's variances need the digits (not inside ``torch.compile``).

    Args:
        images: Tensor (..., H, W), H and W larger than half the window.
        sigma: Standard deviation in pixels, larger than 0.
        window: Side of the window in pixels, odd. Defaults to four standard deviations to each side, shrunk to what
            the image can be reflected by.

    Returns:
        Tensor of the same shape, float32 or float64.
    """
    height, width = images.shape[-2:]
    radius = window // 2 if window else min(math.ceil(4 * sigma), height - 1, width - 1)
    with torch.autocast(images.device.type, enabled=False):
        images = at_least_float32(images)
        exact = torch.compiler.is_compiling() or torch.get_float32_matmul_precision() == "highest"
        x = images if exact else images.double()
        rows = _blur_matrix(height, sigma, radius).to(x)
        columns = rows if width == height else _blur_matrix(width, sigma, radius).to(x)
        return (rows @ x @ columns.T).to(images.dtype)


def mahalanobis(x: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    r"""Return the Mahalanobis distance :math:`\lVert W (x - \mu) \rVert` of samples to a distribution.

    Equivalent to ``scipy.spatial.distance.mahalanobis(x, mean, V)`` with :math:`V = W^T W`, the inverse covariance. As
    the length of a vector it is never the root of a negative number, and its gradient at the mean is 0.

    Args:
        x: Samples (..., D).
        mean: Mean that broadcasts against ``x``.
        whitening: Matrix W (D, D), for instance the inverse of the covariance's Cholesky factor.

    Returns:
        Distances (...), float32 or float64, also under autocast.

    Example:
        >>> mahalanobis(torch.tensor([[3.0, 8.0]]), torch.zeros(2), torch.diag(torch.tensor([1.0, 0.5])))
        tensor([5.])
    """
    with torch.autocast(x.device.type, enabled=False):
        return torch.linalg.vector_norm((at_least_float32(x) - mean) @ whitening.T, dim=-1)


def _blur_matrix(size: int, sigma: float, radius: int) -> Tensor:
    """Return the matrix (size, size), float64, that smooths a column of pixels."""
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets / sigma).double() ** 2)
    last = size - 1
    sources = last - (last - (torch.arange(size)[:, None] + offsets).abs()).abs()  # reflected into [0, last]
    taps = (weights / weights.sum()).expand(size, -1)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add(1, sources, taps)


ERRORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": l1_error,
    "l2": l2_error,
    "ssim": ssim_error,
    "msgms": msgms_error,
    "chroma": chroma_error,
}


def _gms_error(x: Tensor, y: Tensor) -> Tensor:
    g_x, g_y = _gradient_magnitude(x), _gradient_magnitude(y)
    c = 0.0026
    return ((g_x - g_y).square() / (g_x.square() + g_y.square() + c)).clamp(max=1)


def _gradient_magnitude(images: Tensor) -> Tensor:
    """Return Prewitt gradient magnitudes; the small constant keeps the root differentiable where gradients are 0.

    Sums of shifted images: on the CPU twice as fast as a grouped convolution.
    """
    x = F.pad(images, (1, 1, 1, 1), mode="replicate")
    of_rows = x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
    of_columns = x[..., :-2] + x[..., 1:-1] + x[..., 2:]
    across = (of_rows[..., :-2] - of_rows[..., 2:]) / 3
    down = (of_columns[..., :-2, :] - of_columns[..., 2:, :]) / 3
    return (across.square() + down.square() + 1e-12).sqrt()


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return half precision as float32, and float32 or float64 as it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def check_eps(eps: float) -> None:
    """Raise ValueError unless ``eps`` is in [1e-6, 1)."""
    if not 1e-6 <= eps < 1:
        msg = f"Expected eps in [1e-6, 1), got {eps}. Use the default 1e-6 if unsure."
        raise ValueError(msg)


def check_pair(reconstruction: Tensor, target: Tensor) -> None:
    """Raise TypeError or ValueError unless both are floating point and of the same shape."""
    for name, tensor in (("reconstruction", reconstruction), ("target", target)):
        check_floating_point(name, tensor)
    if reconstruction.shape != target.shape:
        msg = (
            f"Expected reconstruction and target of the same shape, got {tuple(reconstruction.shape)} "
            f"and {tuple(target.shape)}."
        )
        raise ValueError(msg)


def check_floating_point(name: str, tensor: Tensor) -> None:
    """Raise TypeError unless a tensor is floating point."""
    if not tensor.is_floating_point():
        msg = (
            f"Expected {name} to be floating point with values in [0, 1], got {tensor.dtype}. "
            "Convert 8-bit images with `image.float() / 255`."
        )
        raise TypeError(msg)


def check_unit(name: str, tensor: Tensor, remedy: str, tolerance: float = 0.0) -> None:
    """Raise ValueError unless there are values and all lie in [0, 1]; NaN fails the comparison too.

    Args:
        name: What the tensor is, for the message.
        tensor: Floating point, any shape.
        remedy: What to do about it, for the message.
        tolerance: By how much values may exceed the interval.
    """
    if tensor.numel() == 0:
        msg = f"Expected {name} to have at least one element, got shape {tuple(tensor.shape)}."
        raise ValueError(msg)
    low, high = tensor.detach().aminmax()
    if not (low >= -tolerance and high <= 1 + tolerance):
        what = f"values in [{low.item():.4g}, {high.item():.4g}]"
        if not (torch.isfinite(low) and torch.isfinite(high)):
            what = f"non-finite values ({(~torch.isfinite(tensor)).sum().item()} of {tensor.numel()})"
        msg = f"Expected {name} with finite values in [0, 1], got {what}. {remedy}"
        raise ValueError(msg)


def check_images(images: Tensor) -> None:
    """Raise TypeError or ValueError unless images are floating point in [0, 1]; resizing may overshoot by 0.01.

    Values are not checked while a model is compiled or exported.
    """
    check_floating_point("images", images)
    if not torch.compiler.is_compiling():
        remedy = "Scale images to [0, 1]; do not normalise them by mean and deviation in the pre-processor."
        check_unit("images", images, remedy, tolerance=0.01)


def _check_size(images: Tensor, metric: str, smallest_side: int) -> None:
    if images.ndim != 4 or min(images.shape[-2:]) < smallest_side:
        msg = (
            f"Expected images of shape (N, C, H, W) with H and W at least {smallest_side} for {metric!r}, "
            f"got shape {tuple(images.shape)}. Enlarge the images or use 'l1' or 'l2'."
        )
        raise ValueError(msg)
