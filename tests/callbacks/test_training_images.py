"""Training images in memory: the same training, every file read once, the datamodule as it was."""

from unittest.mock import Mock

import pytest
import torch
from anomalib.data.datasets.base import image
from anomalib.pre_processing import PreProcessor
from helpers import make_parts
from torch.utils.data import DataLoader, WeightedRandomSampler
from torchvision.transforms.v2 import Compose, Lambda, RandomHorizontalFlip, Resize
from torchvision.tv_tensors import Image

from anomalib_lamp import LampAE
from anomalib_lamp.callbacks import training_images

EPOCHS = 3
BYTES_OF_AN_IMAGE = 3 * 32 * 32 * 4
LOOKED_AT = 4 + 4  # images read once more when the training begins: held-out ones, and as many learnt ones


def small_model(**arguments):
    return LampAE(
        **{"targets": "pixels", "width": 4, "depth": 3, "image_size": 32, "seed": 0, "visualizer": False, **arguments}
    )


@pytest.fixture
def reads(monkeypatch):
    """Return the paths of the training images in the order in which they are read."""
    seen = []
    original = image.read_image

    def note(path, *args, **kwargs):
        if "train" in str(path):
            seen.append(str(path))
        return original(path, *args, **kwargs)

    monkeypatch.setattr(image, "read_image", note)
    return seen


def fit(make_engine, parts, **arguments):
    model = small_model(**arguments)
    make_engine(max_epochs=EPOCHS).fit(model, datamodule=parts)
    return model


def test_learns_the_same_as_from_files(make_engine, parts_root, monkeypatch):
    from_memory = fit(make_engine, make_parts(parts_root))
    monkeypatch.setattr(training_images, "MEMORY_LIMIT", 0)
    from_files = fit(make_engine, make_parts(parts_root))
    for name, value in from_files.state_dict().items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(from_memory.state_dict()[name], value, rtol=0, atol=0)


def test_every_training_image_is_read_once(make_engine, parts, reads):
    fit(make_engine, parts)
    assert sorted(reads) == sorted(parts.train_data.samples.image_path)


def test_as_many_as_fit_are_kept_and_the_others_read_each_time(make_engine, parts, reads, monkeypatch, caplog):
    monkeypatch.setattr(training_images, "MEMORY_LIMIT", 5 * BYTES_OF_AN_IMAGE + 1)
    fit(make_engine, parts, calibration="none")
    files = list(parts.train_data.samples.image_path)
    assert all(reads.count(path) == 1 for path in files[:5])
    assert all(reads.count(path) >= EPOCHS for path in files[5:])
    assert "5 of 8 training images are kept in memory, and 3 are read in every epoch" in caplog.text


def test_images_lie_in_one_piece_of_memory(parts):
    parts.setup()
    parts.train_data.augmentations = Resize((32, 32))
    kept = training_images.KeptItems(parts.train_data, num_workers=0, progress_bar=False)
    images = [kept[index].image for index in range(len(kept))]
    assert len({image.untyped_storage().data_ptr() for image in images}) == 1
    assert images[0].untyped_storage().nbytes() == len(kept) * BYTES_OF_AN_IMAGE
    assert all(torch.equal(kept[index].image, parts.train_data[index].image) for index in range(len(kept)))


def test_workers_read_them_as_well(make_engine, parts_root):
    parts = make_parts(parts_root, num_workers=2)
    fit(make_engine, parts)
    assert parts.train_dataloader().num_workers == 2


@pytest.mark.parametrize("size", [32, (32, 32)])
def test_images_that_differ_each_time_are_read_each_time(make_engine, parts_root, reads, size):
    augmentations = Compose([RandomHorizontalFlip(), Resize(size)])
    parts = make_parts(parts_root, train_augmentations=augmentations)
    fit(make_engine, parts, calibration="none")
    assert len(reads) == LOOKED_AT + EPOCHS * len(parts.train_data)


def test_images_resized_by_one_side_are_read_each_time(make_engine, parts_root, reads):
    parts = make_parts(parts_root)
    fit(make_engine, parts, calibration="none", pre_processor=PreProcessor(Resize(32)))
    assert len(reads) == LOOKED_AT + EPOCHS * len(parts.train_data)


def test_images_that_are_drawn_unevenly_are_read_each_time(make_engine, parts_root, reads):
    parts = make_parts(parts_root)
    plain = parts.train_dataloader

    def first_image_only():
        loader = plain()
        weights = [1.0] + [0.0] * (len(loader.dataset) - 1)
        sampler = WeightedRandomSampler(weights, len(weights))
        return DataLoader(loader.dataset, batch_size=4, sampler=sampler, collate_fn=loader.collate_fn)

    parts.train_dataloader = first_image_only
    fit(make_engine, parts, calibration="none")
    assert len(reads) == LOOKED_AT + EPOCHS * len(parts.train_data)
    assert len(set(reads[LOOKED_AT:])) == 1


def test_what_the_pre_processor_does_besides_is_done_to_every_batch(make_engine, parts, reads):
    seen = []
    flips = Compose([Resize((32, 32)), Lambda(lambda images: seen.append(images.shape) or images, Image)])
    fit(make_engine, parts, calibration="none", pre_processor=PreProcessor(flips))
    assert len(reads) == len(parts.train_data)
    assert seen.count((4, 3, 32, 32)) >= EPOCHS * len(parts.train_data) / 4


@pytest.mark.parametrize("fails", [False, True])
def test_the_datamodule_is_as_it_was(make_engine, parts, fails):
    model = small_model()
    if fails:
        model.model.repair_pixels = Mock(side_effect=ZeroDivisionError)
        with pytest.raises(ZeroDivisionError):
            make_engine(max_epochs=1).fit(model, datamodule=parts)
    else:
        make_engine(max_epochs=1).fit(model, datamodule=parts)
    assert parts.train_dataloader().dataset is parts.train_data
    assert "train_dataloader" not in vars(parts)
