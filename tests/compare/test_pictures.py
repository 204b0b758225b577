"""Pictures of a test show image, defect and heat map, and one that cannot be written is an error."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_lamp.compare.pictures import PICTURE_SIDE, save_pictures


@pytest.fixture
def predictions(tmp_path):
    """Predictions for a good and a defective orange image whose defect is a square in the middle."""
    paths = [str(tmp_path / name) for name in ("good.png", "bad.png")]
    for path in paths:
        Image.new("RGB", (64, 64), (220, 120, 20)).save(path)
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[1, 16:48, 16:48] = True
    labels = torch.tensor([False, True])
    return SimpleNamespace(maps=masks.float(), masks=masks, labels=labels, scores=torch.tensor([0.1, 0.9]), paths=paths)


def test_a_picture_is_image_outline_and_heat_map_in_their_colours(predictions, tmp_path):
    save_pictures(predictions, tmp_path / "pictures")
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {"hit_0.jpg", "miss_0.jpg", "false_alarm_0.jpg"}
    picture = np.array(Image.open(tmp_path / "pictures" / "hit_0.jpg")).astype(int)
    image, outline, heat = np.split(picture, 3, axis=1)
    assert image.shape == (PICTURE_SIDE, PICTURE_SIDE, 3)
    assert np.abs(image - (220, 120, 20)).max() < 15  # JPEG
    red = outline[PICTURE_SIDE // 4, PICTURE_SIDE // 2]
    assert red[0] > 180
    assert red[1:].max() < 90
    middle, corner = heat[PICTURE_SIDE // 2, PICTURE_SIDE // 2], heat[5, 5]
    assert middle[0] > middle[2] + 100  # high is red
    assert corner[2] > middle[2] + 40  # low is blue


def test_a_picture_that_cannot_be_written_is_an_error(predictions, tmp_path):
    (tmp_path / "pictures" / "hit_0.jpg").mkdir(parents=True)
    with pytest.raises(OSError, match=r"hit_0\.jpg"):
        save_pictures(predictions, tmp_path / "pictures")
