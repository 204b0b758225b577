"""The picture of a result: which panels it has, and what they show."""

import numpy as np
import pytest
import torch
from anomalib.data import ImageItem
from PIL import Image

from anomalib_lamp import LampAE
from anomalib_lamp.visualization import ReconstructionVisualizer


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
