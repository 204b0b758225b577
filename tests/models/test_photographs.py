"""What real photographs bring: few of them, grey, transparent, wide, huge, of mixed sizes. Both models cope."""

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from helpers import make_lamp_ae
from PIL import Image

from anomalib_lamp import FineTunedGaussian

GENERATOR = np.random.default_rng(0)
MODELS = {
    "LampAE": make_lamp_ae,
    "LampAE of pixels and features": lambda: make_lamp_ae(targets="pixels+features"),
    "FineTunedGaussian": lambda: FineTunedGaussian(
        "resnet18", ["act1", "layer1"], weights="random", image_size=64, max_steps=2, seed=0, visualizer=False
    ),
}


def photograph(width=80, height=80, mode="RGB", scratch=False):
    """Return a noisy gradient, brighter or darker each time, with a bright line if scratched; enlarged to its size."""
    pixels = np.linspace(60, 180, 80)[:, None] + GENERATOR.normal(0, 3, (80, 80)) + GENERATOR.uniform(-5, 5)
    if scratch:
        pixels[40:44, 20:40] = 255
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((width, height)).convert(mode)
    if mode == "RGBA":
        image.putalpha(128)
    return image


def folder(root, train, test=None):
    """Return a datamodule of photographs: arguments of `photograph` for training images, and for test images."""
    for name, images in {"good": train, "good_test": test or train[:2], "bad": test or train[:2]}.items():
        (root / name).mkdir(parents=True)
        for index, arguments in enumerate(images):
            image = photograph(**arguments, scratch=name == "bad")
            image.save(root / name / f"{index:03}.png", compress_level=1)
    return Folder(
        name="photographs",
        root=root,
        normal_dir="good",
        normal_test_dir="good_test",
        abnormal_dir="bad",
        test_split_mode="from_dir",
        val_split_mode="same_as_test",
        train_batch_size=4,
        eval_batch_size=4,
        num_workers=0,
    )


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "photographs",
    [
        pytest.param([{}] * 20, id="twenty"),
        pytest.param([{"mode": "L"}] * 8, id="grey"),
        pytest.param([{"mode": "RGBA"}] * 8, id="transparent"),
        pytest.param([{"width": 160, "height": 60}] * 8, id="wide"),
        pytest.param([{"width": 4000, "height": 3000}] * 2, id="huge"),
        pytest.param([{"width": 60 + 10 * i, "height": 90 - 5 * i} for i in range(8)], id="mixed"),
    ],
)
def test_photographs_are_learnt_and_scored(model, photographs, make_engine, tmp_path):
    data = folder(tmp_path / "data", photographs)
    trained = MODELS[model]()
    metrics = make_engine().train(trained, datamodule=data)[0]
    assert 0 <= metrics["image_AUROC"] <= 1
    assert all(parameter.isfinite().all() for parameter in trained.parameters())
    trained.eval()
    for batch in data.test_dataloader():
        with torch.no_grad():
            predictions = trained(batch.image)
        assert predictions.pred_score.isfinite().all()
        assert 0 <= predictions.anomaly_map.min() <= predictions.anomaly_map.max() <= 1


@pytest.mark.parametrize("model", MODELS)
def test_a_single_training_image_is_learnt_with_a_warning(model, make_engine, tmp_path, caplog):
    data = folder(tmp_path / "data", [{}], test=[{}] * 3)
    if model.startswith("LampAE"):
        with pytest.warns(UserWarning, match="Too few training images to hold some out"):
            metrics = make_engine().train(MODELS[model](), datamodule=data)[0]
    else:
        metrics = make_engine().train(MODELS[model](), datamodule=data)[0]
        assert "Too few images to hold some out" in caplog.text
    assert 0 <= metrics["image_AUROC"] <= 1


def test_formats_of_one_part_give_one_score(tmp_path, make_engine):
    """A grey photograph scores the same whether it is saved as grey, as colour or with an opaque alpha channel."""
    model = MODELS["LampAE"]()
    make_engine().fit(model, datamodule=folder(tmp_path / "data", [{}] * 8))
    grey = photograph(mode="L", scratch=True)
    (tmp_path / "formats").mkdir()
    for mode in ("L", "RGB", "RGBA"):
        grey.convert(mode).save(tmp_path / "formats" / f"{mode}.png")
    predictions = make_engine().predict(model, data_path=tmp_path / "formats")
    scores = torch.cat([batch.pred_score for batch in predictions])
    torch.testing.assert_close(scores, scores[:1].expand_as(scores), rtol=0, atol=1e-6)
