"""The networks of LampAE: any size, every parameter trained, what skip connections pass."""

import pytest
import torch

from anomalib_lamp.models.lamp_ae import LampAEModel

ARCHITECTURES = [
    {"architecture": "autoencoder"},
    {"architecture": "unet"},
    {"architecture": "unet", "skip_connections": False},
]


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("arguments", ARCHITECTURES)
@pytest.mark.parametrize("size", [(32, 32), (40, 56), (33, 47)])
def test_reconstructs_any_size_into_the_unit_interval(arguments, size):
    model = LampAEModel(width=4, depth=3, **arguments)
    reconstruction = model(torch.rand(2, 3, *size))
    assert reconstruction.shape == (2, 3, *size)
    assert reconstruction.min() >= 0
    assert reconstruction.max() <= 1


@pytest.mark.parametrize("arguments", ARCHITECTURES)
def test_every_parameter_learns(arguments):
    model = LampAEModel(width=4, depth=3, **arguments)
    images = torch.rand(2, 3, 32, 32)
    (model(images) - images).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize("arguments", ARCHITECTURES)
def test_width_and_depth_change_the_size(arguments):
    small = count(LampAEModel(width=4, depth=3, **arguments))
    assert count(LampAEModel(width=8, depth=3, **arguments)) > small
    assert count(LampAEModel(width=4, depth=4, **arguments)) > small


def test_channels_stop_growing_at_512():
    assert LampAEModel(width=600, depth=2)(torch.rand(1, 3, 16, 16)).shape == (1, 3, 16, 16)


def test_a_single_smallest_image_trains():
    model = LampAEModel(width=4, depth=3)
    assert model(torch.rand(1, 3, model.smallest_side, model.smallest_side)).requires_grad


def test_skip_connections_pass_detail_that_a_bottleneck_cannot():
    """A change of one pixel reaches its neighbourhood through the skips even if the middle is cut off."""
    torch.manual_seed(0)
    model = LampAEModel(width=4, depth=4).eval()
    for parameter in model.network.middle.parameters():
        parameter.data.zero_()
    images = torch.rand(1, 3, 64, 64)
    changed = images.clone()
    changed[..., 16, 16] = 1 - changed[..., 16, 16]
    assert (model.reconstruct(images) != model.reconstruct(changed)).any()
    without = LampAEModel(width=4, depth=4, skip_connections=False).eval()
    for parameter in without.network.middle.parameters():
        parameter.data.zero_()
    assert torch.equal(without.reconstruct(images), without.reconstruct(changed))
