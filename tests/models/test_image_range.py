"""Images out of [0, 1] are refused in evaluation as in training, by both models."""

import pytest
import torch

from anomalib_lamp.models.fine_tuned_gaussian import FineTunedGaussianModel
from anomalib_lamp.models.lamp_ae import LampAEModel

MODELS = {
    "LampAE": lambda: LampAEModel(width=4, depth=3),
    "FineTunedGaussian": lambda: FineTunedGaussianModel("resnet18", ["act1", "layer1"], image_size=(32, 32)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x: 255 * x, ValueError, r"images with finite values in \[0, 1\], got values in .* Scale images"),
        (
            lambda x: (255 * x).to(torch.uint8),
            TypeError,
            r"got torch.uint8. Convert 8-bit images with `image.float\(\) / 255`",
        ),
        (lambda x: x * float("nan"), ValueError, "non-finite values"),
    ],
    ids=["0-255", "uint8", "NaN"],
)
def test_images_out_of_range_are_refused(name, change, error, message):
    model, images = MODELS[name]().eval(), torch.rand(2, 3, 32, 32)
    assert model(images).pred_score.isfinite().all()
    with pytest.raises(error, match=message):
        model(change(images))
