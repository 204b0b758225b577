"""The augmentations that held-out images are compared with."""

import pytest
import torch

from anomalib_lamp.models.fine_tuned_gaussian.augmentation import AUGMENTATIONS, cutout


class TestAugmentations:
    @pytest.mark.parametrize("augmentation", AUGMENTATIONS.values(), ids=AUGMENTATIONS.keys())
    def test_changes_every_image_within_the_unit_interval(self, augmentation):
        images = torch.rand(4, 3, 48, 64)
        torch.manual_seed(1)
        augmented = augmentation(images)
        torch.manual_seed(1)
        assert torch.equal(augmented, augmentation(images))
        assert augmented.shape == images.shape
        assert 0 <= augmented.min() <= augmented.max() <= 1
        assert (augmented - images).abs().flatten(1).amax(dim=1).min() > 0.05

    def test_cutout_is_a_rectangle_of_the_mean_colour(self):
        images = torch.rand(1, 3, 100, 100)
        changed = (cutout(images) != images).any(dim=1)[0]
        rows, columns = changed.any(dim=1).sum(), changed.any(dim=0).sum()
        assert changed.sum() == rows * columns > 0
        torch.testing.assert_close(cutout(images).amin(), images.amin())
