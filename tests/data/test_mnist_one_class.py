"""MNISTOneClass: one digit trains, ten are tested, and bad folders are named. MNIST itself is made up here."""

import os
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from anomalib.data import get_datamodule
from anomalib.engine import Engine
from helpers import SHARED_DATA, write_mnist
from torchvision.datasets import MNIST

from anomalib_lamp import LampAE, MNISTOneClass


@pytest.fixture
def root(tmp_path):
    return write_mnist(tmp_path)


def prepared(root, **arguments):
    data = MNISTOneClass(root=root, num_workers=0, **arguments)
    data.prepare_data()
    data.setup()
    return data


def test_training_images_show_the_normal_digit_and_test_images_all(root):
    data = prepared(root, normal_digit=3)
    assert len(data.train_data) == 4
    assert len(data.test_data) == 40
    shown = [round(255 * item.image[0, 0, 0].item()) for item in data.train_data]
    assert shown == [3, 3, 3, 3]
    shown = [round(255 * item.image[0, 0, 0].item()) for item in data.test_data]
    assert [item.gt_label.item() for item in data.test_data] == [digit != 3 for digit in shown]


def test_images_equal_torchvisions_in_three_channels(root):
    data = prepared(root, normal_digit=0)
    original = MNIST(root, train=False, download=False)
    for item in data.test_data:
        expected = original.data[int(Path(item.image_path).stem)].float() / 255
        torch.testing.assert_close(item.image.as_subclass(torch.Tensor), expected.expand(3, 28, 28))
        assert item.gt_mask is None


def test_pictures_are_written_once(root):
    prepared(root)
    picture = next((root / "MNISTOneClass" / "train" / "7").iterdir())
    os.utime(picture, (0, 0))
    prepared(root, normal_digit=7)
    assert picture.stat().st_mtime == 0
    assert sorted(path.name for path in root.iterdir()) == ["MNIST", "MNISTOneClass"]


def test_model_trains_and_is_scored_without_masks(root):
    data = get_datamodule({"class_path": "MNISTOneClass", "init_args": {"root": str(root), "num_workers": 0}})
    model = LampAE(targets="pixels", architecture="autoencoder", depth=2, width=4, max_steps=2, image_size=28, seed=0)
    metrics = Engine(accelerator="cpu", default_root_dir=root, logger=False).train(model, datamodule=data)[0]
    assert 0 <= metrics["image_AUROC"] <= 1
    assert not [name for name in metrics if name.startswith("pixel")]


def test_other_than_a_digit_is_refused():
    with pytest.raises(ValueError, match="Expected normal_digit to be one of 0 to 9, got 10"):
        MNISTOneClass(normal_digit=10)


def test_missing_mnist_without_network_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(MNIST, "download", Mock(side_effect=RuntimeError("Error downloading train-images.gz")))
    with pytest.raises(RuntimeError, match=r"Expected MNIST in .*MNIST/raw, or a network .* Copy the four IDX files"):
        MNISTOneClass(root=tmp_path).prepare_data()
    assert not (tmp_path / "MNISTOneClass").exists()


def test_unwritable_root_is_named(root, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", Mock(side_effect=PermissionError(13, "Permission denied")))
    with pytest.raises(OSError, match=r"Expected to write pictures to .*MNISTOneClass.* Choose a root"):
        MNISTOneClass(root=root).prepare_data()
    assert {path.name for path in root.iterdir()} == {"MNIST", ".MNISTOneClass.lock"}


@pytest.mark.skipif(not (SHARED_DATA / "MNIST").is_dir(), reason="needs shared/data/MNIST")
def test_real_mnist_has_its_known_numbers(tmp_path):
    (tmp_path / "MNIST").symlink_to(SHARED_DATA / "MNIST")
    data = prepared(tmp_path, normal_digit=9)
    assert len(data.train_data) == 5949
    assert len(data.test_data) == 10000
    assert (data.test_data.samples.label_index == 0).sum() == 1009
