"""LampLoss against plain re-derivations, and what it says about bad input."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy

from anomalib_lamp import LampLoss
from anomalib_lamp.functional import amplify, reconstruction_error


def pair(*shape, dtype=torch.float32):
    return torch.rand(*shape, dtype=dtype), torch.rand(*shape, dtype=dtype)


def test_equals_the_papers_sum_written_as_a_loop():
    reconstruction, target = pair(2, 3, 4, 5, dtype=torch.float64)
    expected = 0.0
    for n, c, h, w in np.ndindex(2, 3, 4, 5):
        error = (reconstruction[n, c, h, w] - target[n, c, h, w]).item() ** 2
        expected -= np.log(1 - error) / 2
    assert LampLoss("l2")(reconstruction, target).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shape", [(4, 3, 16, 16), (7,), (3, 5), (1, 1, 1, 1)])
def test_over_l1_with_binary_targets_is_binary_cross_entropy(shape):
    reconstruction, target = torch.rand(shape) * 0.98 + 0.01, torch.rand(shape).round()
    loss = LampLoss("l1", reduction="mean")(reconstruction, target)
    torch.testing.assert_close(loss, binary_cross_entropy(reconstruction, target))


@pytest.mark.parametrize("base", ["l1", "l2", "ssim", "msgms"])
@pytest.mark.parametrize("amplified", [True, False])
def test_reductions_agree_with_the_functions(base, amplified):
    reconstruction, target = pair(3, 3, 16, 16)
    error = reconstruction_error(reconstruction, target, base)
    error = amplify(error) if amplified else error
    for reduction, expected in [("none", error), ("mean", error.mean()), ("sum", error.sum(dim=(1, 2, 3)).mean())]:
        loss = LampLoss(base, amplify=amplified, reduction=reduction)(reconstruction, target)
        torch.testing.assert_close(loss, expected)


def test_is_never_below_the_base_loss():
    reconstruction, target = pair(2, 3, 16, 16)
    for base in ("l1", "l2", "ssim", "msgms"):
        assert LampLoss(base)(reconstruction, target) >= LampLoss(base, amplify=False)(reconstruction, target)


def test_a_scalar_is_one_element():
    assert LampLoss("l1")(torch.tensor(0.5), torch.tensor(0.0)).item() == pytest.approx(np.log(2))


def test_takes_a_callable_or_module_as_base():
    class Cubed(nn.Module):
        def forward(self, reconstruction, target):
            return (reconstruction - target).abs() ** 3

    reconstruction, target = pair(2, 3, 4, 4)
    expected = -torch.log(1 - (reconstruction - target).abs() ** 3).sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(LampLoss(Cubed())(reconstruction, target), expected)
    torch.testing.assert_close(LampLoss(lambda x, y: (x - y).abs() ** 3)(reconstruction, target), expected)


@pytest.mark.parametrize("amplified", [True, False])
def test_the_sum_of_a_large_image_in_half_precision_is_finite(amplified):
    ones, zeros = torch.ones(1, 3, 256, 256).half(), torch.zeros(1, 3, 256, 256).half()
    assert torch.isfinite(LampLoss("l2", amplify=amplified)(ones, zeros))


def test_gradient():
    reconstruction, target = pair(1, 1, 11, 11, dtype=torch.float64)
    for base in ("l1", "l2", "ssim"):
        assert torch.autograd.gradcheck(LampLoss(base), (reconstruction.requires_grad_(), target))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("base", ["l1", "l2", "ssim"])
def test_under_autocast_the_loss_is_that_of_float32(base, dtype):
    layer = nn.Conv2d(3, 3, 1)
    images = torch.rand(2, 3, 16, 16)
    with torch.autocast("cpu", dtype):
        reconstruction = torch.sigmoid(layer(images))
        loss = LampLoss(base)(reconstruction, images)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(layer.weight.grad).all()
    torch.testing.assert_close(loss, LampLoss(base)(reconstruction.float(), images), rtol=2e-2, atol=0.5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("base", ["l1", "l2", "ssim", "msgms"])
def test_on_cuda_equals_cpu(base):
    reconstruction, target = pair(2, 3, 16, 16)
    loss = LampLoss(base)(reconstruction.cuda(), target.cuda())
    torch.testing.assert_close(loss.cpu(), LampLoss(base)(reconstruction, target), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("base", ["l1", "l2", "ssim"])
def test_compiles_without_graph_breaks(base):
    reconstruction, target = pair(2, 3, 16, 16)
    compiled = torch.compile(LampLoss(base), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(reconstruction, target), LampLoss(base)(reconstruction, target))


class TestBadInput:
    good = torch.full((1, 3, 16, 16), 0.5)

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (-0.25, r"Expected reconstruction with finite values in \[0, 1\], got values in \[-0.25, 0.5\]"),
            (1.5, r"got values in \[0.5, 1.5\]\. End the network with a sigmoid"),
            (float("nan"), r"got non-finite values \(1 of 768\)"),
            (float("inf"), r"got non-finite values \(1 of 768\)"),
        ],
    )
    def test_names_the_range_seen(self, value, message):
        bad = self.good.clone()
        bad[0, 0, 0, 0] = value
        with pytest.raises(ValueError, match=message):
            LampLoss()(bad, self.good)
        with pytest.raises(ValueError, match="Expected target with finite values"):
            LampLoss()(self.good, bad)

    def test_shapes_and_dtypes(self):
        with pytest.raises(ValueError, match="same shape"):
            LampLoss()(self.good, self.good[:, :1])
        with pytest.raises(TypeError, match="floating point"):
            LampLoss()(self.good, self.good.byte())

    def test_a_base_error_outside_the_unit_interval(self):
        with pytest.raises(ValueError, match=r"Expected base error .* got values in \[2, 2\]\. Scale or clamp"):
            LampLoss(lambda x, _: torch.full_like(x, 2))(self.good, self.good)

    @pytest.mark.parametrize("base", ["l2", lambda x, y: (x - y) ** 2])
    def test_a_target_that_would_broadcast(self, base):
        with pytest.raises(ValueError, match=r"same shape, got \(1, 3, 16, 16\) and \(1, 1, 16, 16\)"):
            LampLoss(base)(self.good, self.good[:, :1])

    @pytest.mark.parametrize("base", [lambda x, y: (x - y).mean(), lambda x, y: (x - y).mean(1, keepdim=True)])
    def test_a_base_that_reduces(self, base):
        with pytest.raises(
            ValueError, match=r"one error per element, shape \(1, 3, 16, 16\), got shape .* Do not reduce"
        ):
            LampLoss(base)(self.good, self.good)

    def test_an_empty_batch(self):
        with pytest.raises(ValueError, match=r"at least one element, got shape \(0, 3, 16, 16\)"):
            LampLoss()(self.good[:0], self.good[:0])

    def test_arguments(self):
        with pytest.raises(ValueError, match=r"\['l1', 'l2', 'msgms', 'ssim'\] or a callable, got 'L3'"):
            LampLoss("L3")
        with pytest.raises(ValueError, match="got 'chroma'"):
            LampLoss("chroma")
        with pytest.raises(TypeError, match="a callable, got int"):
            LampLoss(3)
        with pytest.raises(ValueError, match=r"\['sum', 'mean', 'none'\], got 'batchmean'"):
            LampLoss(reduction="batchmean")
        with pytest.raises(ValueError, match="eps"):
            LampLoss(eps=1e-12)
