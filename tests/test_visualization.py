"""The picture of a result: which panels it has, and what they show."""

import pickle
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from anomalib.data import ImageItem
from helpers import make_fine_tuned_gaussian, make_lamp_ae
from PIL import Image

from anomalib_lamp import LampAE
from anomalib_lamp.visualization import ImagePictures, ReconstructionVisualizer


@pytest.fixture
def item(tmp_path):
    """A blue image with a defect in its middle, and its predictions."""
    path = tmp_path / "blue.png"
    Image.new("RGB", (40, 40), "blue").save(path)
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[12:20, 12:20] = True
    return ImageItem(
        image=torch.zeros(3, 32, 32),
        image_path=str(path),
        gt_mask=mask,
        anomaly_map=mask.float(),
        pred_mask=mask,
        pred_label=torch.tensor(True),
        pred_score=torch.tensor(0.9),
    )


def panels(picture, size=64):
    return [np.asarray(picture.crop((left, 0, left + size, size))) for left in range(0, picture.width, size)]


def test_five_panels_side_by_side(item):
    visualizer = ReconstructionVisualizer(field_size=(64, 64), text_config={"enable": False})
    picture = visualizer.visualize_reconstruction(item, torch.tensor([0.0, 1.0, 0.0])[:, None, None].expand(3, 32, 32))
    image, truth, reconstruction, heat_map, predicted = panels(picture)
    assert (image == [0, 0, 255]).all()
    assert truth[32, 32].tolist() == [255, 255, 255]
    assert truth[0, 0].tolist() == [0, 0, 0]
    assert (reconstruction == [0, 255, 0]).all()
    assert (heat_map[32, 32] != heat_map[0, 0]).any()
    assert (predicted != image).any()


def test_without_ground_truth_its_panel_is_left_out(item):
    item.gt_mask = None
    visualizer = ReconstructionVisualizer(field_size=(64, 64))
    assert len(panels(visualizer.visualize_reconstruction(item, torch.zeros(3, 32, 32)))) == 4


def test_the_engine_saves_a_picture_of_every_test_image(make_engine, parts, tmp_path):
    engine = make_engine()
    engine.train(LampAE(width=4, depth=3, image_size=64, max_steps=2), datamodule=parts)
    names = {path.parent.name + "/" + path.name for path in tmp_path.rglob("latest/images/**/*.png")}
    assert names == {f"good/00{i}.png" for i in range(4)} | {
        f"{defect}/000.png" for defect in ("scratch", "dent", "contamination", "missing")
    }
    assert Image.open(next(tmp_path.rglob("latest/images/**/*.png"))).size == (5 * 256, 256)


def predict_three_lines(make_engine, parts, tmp_path, make_model):
    """Predict the same names in folders of the same name; return the pictures and how red each image is."""
    engine, model = make_engine(), make_model(visualizer=True)
    engine.fit(model, datamodule=parts)
    for line, red in ((1, 20), (2, 120), (3, 220)):
        (tmp_path / f"line{line}" / "ng").mkdir(parents=True)
        picture = Image.new("RGB", (64, 64), (red, 0, 0))
        picture.putpixel((3, 3), (0, 255, 0))
        picture.save(tmp_path / f"line{line}" / "ng" / "000.png")
    engine.predict(model, data_path=tmp_path, return_predictions=False)
    engine.predict(model, data_path=tmp_path / "line2", return_predictions=False)
    return {path: np.asarray(Image.open(path))[200, 100, 0] for path in tmp_path.rglob("images/**/*.png")}


@pytest.mark.parametrize("make_model", [make_lamp_ae, make_fine_tuned_gaussian])
def test_images_of_equal_names_have_pictures_of_their_own(make_engine, parts, tmp_path, make_model):
    pictures = predict_three_lines(make_engine, parts, tmp_path, make_model)
    names = {path.as_posix().partition("/images/")[2]: red for path, red in pictures.items()}
    assert names == {"ng/000.png": 20, "line2/ng/000.png": 120, "line3/ng/000.png": 220}


def test_the_names_of_images_are_not_exported_with_the_model(item, tmp_path):
    visualizer = ImagePictures()
    visualizer.picture_file(item.image_path, Mock(default_root_dir=tmp_path, datamodule=None))
    assert b"blue" in str(vars(visualizer)).encode()
    assert b"blue" not in pickle.dumps(visualizer)
