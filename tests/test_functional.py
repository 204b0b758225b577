"""Error maps and amplification against NumPy, SciPy and scikit-image."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, prewitt
from skimage.metrics import structural_similarity

from anomalib_lamp.functional import (
    amplify,
    amplify_on_scale,
    gaussian_blur,
    multiplier_on_scale,
    reconstruction_error,
)

METRICS = ["l1", "l2", "ssim", "msgms", "chroma"]


def images(*shape, dtype=torch.float64):
    return torch.rand(shape, dtype=dtype)


class TestAmplify:
    def test_equals_numpy(self):
        error = torch.linspace(0, 0.999, 1000, dtype=torch.float64)
        np.testing.assert_allclose(amplify(error).numpy(), -np.log(1 - error.numpy()), rtol=1e-12)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_is_finite_with_finite_gradient_at_every_edge(self, dtype):
        error = torch.tensor([0.0, 1e-30, 0.5, 1 - 1e-6, 1.0], dtype=dtype, requires_grad=True)
        amplified = amplify(error)
        amplified.sum().backward()
        assert amplified.dtype == torch.float32
        assert torch.isfinite(amplified).all()
        assert torch.isfinite(error.grad).all()
        assert amplified[0] == 0
        assert amplified[-1].item() == pytest.approx(-math.log(1e-6), rel=0.02)

    def test_stays_in_float32_under_autocast(self):
        with torch.autocast("cpu", torch.bfloat16):
            assert amplify(torch.tensor([0.01])).item() == pytest.approx(-math.log(0.99), rel=1e-6)

    def test_is_increasing_and_never_below_the_error(self):
        error = torch.linspace(0, 1, 10001)
        amplified = amplify(error)
        assert (amplified.diff() >= 0).all()
        assert (amplified >= error.clamp(max=1 - 1e-6)).all()

    def test_gradient(self):
        error = torch.linspace(0.01, 0.99, 20, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(amplify, error)

    @pytest.mark.parametrize("eps", [0.0, 1e-12, 1.0, -1.0, float("nan")])
    def test_rejects_an_eps_that_float32_cannot_hold(self, eps):
        with pytest.raises(ValueError, match=r"Expected eps in \[1e-6, 1\), got"):
            amplify(torch.zeros(1), eps=eps)


def amplified_in_numpy(error, scale):
    """Return the amplified errors by a loop: the logarithm up to 0.9 of the scale, a straight line from there."""
    values = []
    for e in error:
        if e <= 0.9 * scale:
            values.append(-scale * np.log(1 - e / scale))
        else:
            values.append(scale * np.log(10) + 10 * (e - 0.9 * scale))
    return np.array(values)


class TestAmplifyOnScale:
    @pytest.mark.parametrize("scale", [1e-4, 1, 2, 3.64, 500])
    def test_equals_numpy_below_and_beyond_the_scale(self, scale):
        error = torch.linspace(0, 3 * scale, 1001, dtype=torch.float64)
        expected = amplified_in_numpy(error.numpy(), scale)
        np.testing.assert_allclose(amplify_on_scale(error, scale).numpy(), expected, rtol=1e-9)

    def test_is_the_amplified_error_of_the_paper_on_the_scale_1(self):
        error = torch.linspace(0, 0.9, 100, dtype=torch.float64)
        torch.testing.assert_close(amplify_on_scale(error, 1), amplify(error))

    def test_small_errors_keep_their_weight_on_every_scale(self):
        for scale in (0.5, 2.0, 500.0):
            error = torch.tensor(1e-6 * scale, requires_grad=True)
            amplify_on_scale(error, scale).backward()
            assert error.grad.item() == pytest.approx(1, abs=1e-5)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_gradient_is_the_multiplier_finite_and_never_zero(self, dtype):
        error = torch.tensor([0.0, 1e-7, 1.0, 1.79, 1.9, 2.0, 6e4], dtype=dtype, requires_grad=True)
        amplified = amplify_on_scale(error, 2)
        amplified.sum().backward()
        assert amplified.dtype == torch.float32
        assert torch.isfinite(amplified).all()
        torch.testing.assert_close(error.grad, multiplier_on_scale(error.detach(), 2).to(dtype), rtol=0.01, atol=0)
        assert error.grad.float().aminmax() == (1, 10)

    def test_stays_in_float32_under_autocast(self):
        with torch.autocast("cpu", torch.bfloat16):
            assert amplify_on_scale(torch.tensor([0.01]), 1).item() == pytest.approx(-math.log(0.99), rel=1e-6)

    def test_gradient_in_double_precision_on_both_sides_of_the_bend(self):
        error = torch.tensor([0.0, 0.3, 0.89, 0.91, 1.5], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda e: amplify_on_scale(e + 1e-3, 1), error)

    def test_multipliers_are_one_over_one_minus_the_error_and_at_most_ten(self):
        multipliers = multiplier_on_scale(torch.tensor([-1e-7, 0.02, 1.0, 1.9, 5.0]), 2)
        np.testing.assert_allclose(multipliers.numpy(), [1, 1 / 0.99, 2, 10, 10], rtol=1e-5)


def test_keeps_its_accuracy_under_reduced_matmul_precision():
    """People set this for speed; SSIM's variances would not survive it."""
    x = 0.8 + 0.2 * torch.rand(1, 3, 64, 64)
    y = (x + 0.01 * torch.rand_like(x)).clamp(max=1)
    expected = reconstruction_error(x, y, "ssim")
    torch.set_float32_matmul_precision("medium")
    try:
        torch.testing.assert_close(reconstruction_error(x, y, "ssim"), expected, atol=1e-5, rtol=0)
    finally:
        torch.set_float32_matmul_precision("highest")


class TestReconstructionError:
    def test_l1_and_l2_equal_numpy_on_any_shape(self):
        for shape in [(), (5,), (2, 3), (2, 1, 7, 1)]:
            x, y = images(*shape), images(*shape)
            np.testing.assert_allclose(reconstruction_error(x, y, "l1"), np.abs(x.numpy() - y.numpy()))
            np.testing.assert_allclose(reconstruction_error(x, y, "l2"), (x.numpy() - y.numpy()) ** 2)

    @pytest.mark.parametrize(("darkest", "contrast"), [(0.0, 1.0), (0.9, 0.1), (0.5, 0.001)])
    def test_ssim_equals_scikit_image_inside_the_border(self, darkest, contrast):
        x, y = images(1, 3, 40, 50, dtype=torch.float32), images(1, 3, 40, 50, dtype=torch.float32)
        x, y = darkest + contrast * x, darkest + contrast * (0.5 * x + 0.5 * y)  # correlated: all terms matter
        _, expected = structural_similarity(
            x[0].double().numpy(),
            y[0].double().numpy(),
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            full=True,
        )
        error = reconstruction_error(x, y, "ssim")[0].numpy()
        inside = np.s_[:, 5:-5, 5:-5]
        np.testing.assert_allclose(error[inside], (1 - expected[inside]) / 2, atol=1e-5)

    def test_msgms_equals_scipy_at_one_scale_after_another(self):
        x, y = images(1, 1, 32, 32), images(1, 1, 32, 32)

        def magnitude(image):
            rows, columns = (prewitt(image, axis=axis, mode="nearest") / 3 for axis in (0, 1))
            # scipy smooths across with reflection of the edge pixel, which equals replication for three taps
            return np.hypot(rows, columns)

        expected = 0.0
        for scale in (1, 2, 4, 8):
            small = [i.numpy()[0, 0].reshape(32 // scale, scale, 32 // scale, scale).mean((1, 3)) for i in (x, y)]
            g_x, g_y = map(magnitude, small)
            error = 1 - (2 * g_x * g_y + 0.0026) / (g_x**2 + g_y**2 + 0.0026)
            enlarged = torch.nn.functional.interpolate(torch.from_numpy(error)[None, None], (32, 32), mode="bilinear")
            expected = expected + enlarged / 4
        torch.testing.assert_close(reconstruction_error(x, y, "msgms"), expected, atol=1e-6, rtol=0)

    def test_chroma_equals_numpy_and_does_not_see_brightness(self):
        x, y = images(2, 3, 4, 5), images(2, 3, 4, 5)
        difference = x.numpy() - y.numpy()
        expected = np.abs(difference - difference.mean(1)[:, None]) / 2
        np.testing.assert_allclose(reconstruction_error(x, y, "chroma").numpy(), expected)
        brighter = x + images(2, 1, 4, 5)
        np.testing.assert_allclose(reconstruction_error(brighter, y, "chroma").numpy(), expected, atol=1e-12)

    @pytest.mark.parametrize("metric", METRICS)
    def test_is_zero_for_equal_images_and_within_bounds_for_opposite_ones(self, metric):
        x = torch.rand(2, 3, 32, 32).round()
        assert reconstruction_error(x, x, metric).abs().max() < 1e-6
        for y in (1 - x, torch.rand_like(x), torch.zeros_like(x), torch.ones_like(x)):
            error = reconstruction_error(x, y, metric)
            assert error.shape == x.shape
            assert error.min() >= 0
            assert error.max() <= 1

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
    def test_constant_images_have_finite_gradients(self, metric, value):
        x = torch.full((1, 3, 32, 32), value, requires_grad=True)
        reconstruction_error(x, torch.full((1, 3, 32, 32), 0.5), metric).sum().backward()
        assert torch.isfinite(x.grad).all()

    @pytest.mark.parametrize("metric", METRICS)
    def test_gradient(self, metric):
        x, y = images(1, 1, 16, 16).requires_grad_(), images(1, 1, 16, 16)
        assert torch.autograd.gradcheck(lambda x: reconstruction_error(x, y, metric), x)

    @pytest.mark.parametrize("metric", METRICS)
    def test_keeps_its_accuracy_under_autocast(self, metric):
        x = torch.rand(1, 3, 32, 32)
        y = (x + 0.01).clamp(max=1)
        expected = reconstruction_error(x, y, metric)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(reconstruction_error(x, y, metric), expected)

    def test_half_precision_is_computed_in_float32(self):
        x, y = torch.zeros(4, dtype=torch.float16), torch.full((4,), 1e-4, dtype=torch.float16)
        error = reconstruction_error(x, y, "l2")
        assert error.dtype == torch.float32
        assert error.sum().item() == pytest.approx(4 * y[0].item() ** 2, rel=1e-5)

    @pytest.mark.parametrize(("metric", "side"), [("ssim", 11), ("msgms", 16)])
    def test_smallest_image(self, metric, side):
        x = torch.rand(1, 3, side, side)
        assert reconstruction_error(x, 1 - x, metric).shape == x.shape
        with pytest.raises(ValueError, match=f"H and W at least {side} for '{metric}', got shape"):
            reconstruction_error(x[..., 1:], x[..., 1:], metric)

    def test_rejects_bad_input(self):
        x = torch.rand(1, 3, 16, 16)
        with pytest.raises(ValueError, match=r"one of \['chroma', 'l1', 'l2', 'msgms', 'ssim'\], got 'psnr'"):
            reconstruction_error(x, x, "psnr")
        with pytest.raises(ValueError, match=r"same shape, got \(1, 3, 16, 16\) and \(1, 3, 16, 15\)"):
            reconstruction_error(x, x[..., 1:])
        with pytest.raises(TypeError, match=r"Expected target to be floating point .*, got torch.uint8"):
            reconstruction_error(x, x.byte())


def test_gaussian_blur_equals_scipy():
    x = images(1, 2, 30, 20)
    expected = gaussian_filter(x.numpy(), sigma=(0, 0, 2, 2), mode="mirror", truncate=4)
    np.testing.assert_allclose(gaussian_blur(x, 2.0).numpy(), expected, atol=1e-12)


def test_gaussian_blur_fits_into_small_images():
    assert gaussian_blur(torch.ones(1, 1, 8, 8), 4.0).shape == (1, 1, 8, 8)
