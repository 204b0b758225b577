"""What anomalib asks of a datamodule, for every one that we register: items, shapes, splits that do not overlap."""

import inspect
import shutil
from pathlib import Path

import pytest
import torch
from anomalib.data import AnomalibDataModule, ImageBatch, get_datamodule
from helpers import SMALL_PARTS, make_parts, write_mnist

from anomalib_lamp import data


@pytest.fixture(params=data.__all__)
def datamodule(request, parts_root, tmp_path):
    """A small instance of every datamodule, by the name under which it is registered."""
    arguments = {
        "SyntheticParts": {"root": parts_root, **SMALL_PARTS},
        "MVTec": {"root": parts_root, "category": "washer"},
        "MNISTOneClass": {"root": write_mnist(tmp_path), "normal_digit": 3},
    }[request.param]
    init_args = {**arguments, "root": str(arguments["root"]), "num_workers": 0}
    made = get_datamodule({"class_path": request.param, "init_args": init_args})
    made.prepare_data()
    made.setup()
    return made


def test_is_a_datamodule_of_anomalibs(datamodule):
    assert isinstance(datamodule, AnomalibDataModule)
    assert not inspect.isabstract(type(datamodule))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_batches_have_images_labels_and_paths(datamodule, split):
    batch = next(iter(getattr(datamodule, f"{split}_dataloader")()))
    assert isinstance(batch, ImageBatch)
    assert batch.image.shape[1] == 3
    assert 0 <= batch.image.min() <= batch.image.max() <= 1
    assert batch.gt_label.dtype == torch.bool
    assert len(batch.image_path) == len(batch.image) == len(batch.gt_label)
    assert not (split == "train" and batch.gt_label.any())


def test_training_and_test_images_do_not_overlap(datamodule):
    train, test = (set(part.samples.image_path) for part in (datamodule.train_data, datamodule.test_data))
    assert train
    assert test
    assert not train & test
    assert set(datamodule.test_data.samples.label_index) == {0, 1}


@pytest.mark.parametrize("name", ["Jürgen", "写真"])
@pytest.mark.parametrize("make", [make_parts, lambda root: data.MVTec(root, "washer")])
def test_a_root_that_anomalib_refuses_is_refused_before_anything_is_written(tmp_path, make, name):
    with pytest.raises(ValueError, match=rf"root in printable ASCII characters.*{name}.*relative path or a link"):
        make(tmp_path / name).prepare_data()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", [make_parts, lambda root: data.MVTec(root, "washer")])
def test_a_link_or_a_relative_path_to_such_a_root_is_read(tmp_path, parts_root, monkeypatch, make):
    shutil.copytree(parts_root, tmp_path / "写真" / "parts")
    (tmp_path / "link").symlink_to(tmp_path / "写真" / "parts")
    monkeypatch.chdir(tmp_path / "写真")
    for root in (tmp_path / "link", Path("parts")):
        made = make(root)
        made.prepare_data()
        made.setup()
        assert len([item.image for item in made.train_data]) == SMALL_PARTS["num_train"]


def test_digits_are_read_from_any_root(tmp_path):
    made = data.MNISTOneClass(write_mnist(tmp_path / "写真"), normal_digit=3, num_workers=0)
    made.prepare_data()
    made.setup()
    assert len([item.image for item in made.train_data]) == 4
