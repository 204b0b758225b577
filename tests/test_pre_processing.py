"""Exported models see what the training saw."""

import pytest
import torch
from anomalib.pre_processing import PreProcessor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import CenterCrop, Compose, Normalize, Resize

from anomalib_lamp.pre_processing import AntialiasedPreProcessor, ExportableResize


@pytest.mark.parametrize("size", [(900, 700), (64, 64), (40, 30), (64, 301), (65, 20), (3, 1)])
def test_exportable_resize_equals_torchs_antialiased_one(size):
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = Resize((64, 64), antialias=True)(images)
    torch.testing.assert_close(ExportableResize(64, 64)(images), expected, atol=2e-6, rtol=0)


def test_size_asked_for_is_kept_exactly():
    images = torch.rand(2, 3, 32, 48)
    assert torch.equal(ExportableResize(32, 48)(images), images)


def test_hairline_is_not_lost():
    """A line of one pixel between the pixels that resizing without antialiasing looks at."""
    photograph = torch.zeros(1, 3, 512, 512)
    photograph[..., 16] = 1.0
    assert PreProcessor(Resize((64, 64)))(photograph).max() == 0
    assert AntialiasedPreProcessor(Resize((64, 64)))(photograph).max() > 0.05


def test_other_transforms_are_kept():
    normalise = Normalize([0.5] * 3, [0.25] * 3)
    images = torch.rand(1, 3, 100, 80)
    pre_processor = AntialiasedPreProcessor(Compose([Resize((64, 64)), normalise]))
    torch.testing.assert_close(pre_processor(images), pre_processor.transform(images), atol=1e-5, rtol=0)


def test_a_checkpoint_restores_both_forms():
    saved = AntialiasedPreProcessor(Resize((32, 48))).checkpoint_config()
    restored = AntialiasedPreProcessor(Resize((64, 64)))
    restored.load_checkpoint_config(saved)
    images = torch.rand(1, 3, 100, 80)
    torch.testing.assert_close(restored(images), restored.transform(images), atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    "resize",
    [Resize(64), Resize((64, 64), antialias=False), Resize((64, 64), interpolation=InterpolationMode.BICUBIC)],
)
def test_any_other_resizing_is_exported_as_anomalib_does(resize):
    images = torch.rand(1, 3, 100, 80)
    assert torch.equal(AntialiasedPreProcessor(resize)(images), PreProcessor(resize)(images))


def test_a_checkpoint_of_an_ordinary_pre_processor_is_taken_over():
    saved = PreProcessor(Compose([Resize(64), CenterCrop(48)]))
    restored = AntialiasedPreProcessor(Resize((64, 64)))
    restored.load_checkpoint_config(saved.checkpoint_config())
    images = torch.rand(1, 3, 100, 80)
    assert torch.equal(restored(images), saved(images))
