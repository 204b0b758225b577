"""Images that anomalib would misread are refused before a training, or named in a warning."""

import logging
import re
import shutil
import warnings

import numpy as np
import pytest
import torch
from anomalib.data import Folder, MVTecAD, PredictDataset
from helpers import make_fine_tuned_gaussian, make_lamp_ae, make_parts
from PIL import ExifTags, Image, ImageOps
from torch.utils.data import DataLoader
from torchvision.transforms.v2.functional import resize

from anomalib_lamp.callbacks.check_images import are_constant
from anomalib_lamp.compare.job import Job, prepare, run_job

GREY_16_BIT = np.linspace(300, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
UNIT_FLOATS = (GREY_16_BIT / 65535).astype(np.float32)
MODELS = pytest.mark.parametrize("make_model", [make_lamp_ae, make_fine_tuned_gaussian])


@pytest.fixture
def washers(parts_root, tmp_path):
    """A folder of drawn washers of its own, to be spoilt."""
    return shutil.copytree(parts_root / "washer", tmp_path / "parts" / "washer")


def fit(make_engine, washers, make_model=make_lamp_ae):
    engine = make_engine()
    engine.fit(make_model(max_steps=1), datamodule=make_parts(washers.parent))
    return engine


def folder_data(washers):
    folders = {"normal_dir": "train/good", "abnormal_dir": "test/dent", "normal_test_dir": "test/good"}
    return Folder("washer", root=washers, **folders, num_workers=0)


def mvtec_data(washers):
    return MVTecAD(washers.parent, "washer", num_workers=0)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def turn_sideways(path):
    """Store a photograph as a camera held upright does: pixels lying, and a note which way is up."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    upright = Image.open(path)
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    return path


def texts(record):
    return [str(warning.message) for warning in record]


@MODELS
@pytest.mark.parametrize(
    "file", ["train/good/003.png", "test/good/001.png", "test/dent/000.png", "ground_truth/dent/000_mask.png"]
)
def test_a_truncated_file_is_named_before_the_training(make_engine, washers, file, make_model, monkeypatch):
    truncate(washers / file)
    model = make_model(max_steps=1)
    monkeypatch.setattr(model, "training_step", lambda *_, **__: pytest.fail("the training has begun"))
    with pytest.raises(ValueError, match=rf"{re.escape(file)} \(OSError: .*\)\. Replace or delete"):
        make_engine().fit(model, datamodule=make_parts(washers.parent))


@pytest.mark.parametrize("make_data", [folder_data, mvtec_data])
def test_anomalibs_own_datamodules_are_checked(make_engine, washers, make_data):
    truncate(washers / "test" / "dent" / "000.png")
    data = make_data(washers)
    with pytest.raises(ValueError, match=r"test/dent/000\.png"):
        make_engine().fit(make_lamp_ae(), datamodule=data)


def test_data_loaders_instead_of_a_datamodule_are_checked(make_engine, washers):
    parts = make_parts(washers.parent)
    parts.setup()
    truncate(washers / "test" / "dent" / "000.png")
    with pytest.raises(ValueError, match=r"test/dent/000\.png"):
        make_engine().fit(make_lamp_ae(), parts.train_dataloader(), parts.val_dataloader())


@MODELS
@pytest.mark.parametrize(
    ("pixels", "ending"),
    [(GREY_16_BIT, "png"), (GREY_16_BIT, "tiff"), (GREY_16_BIT.astype(np.int32), "tiff"), (UNIT_FLOATS, "tiff")],
)
def test_images_of_more_than_8_bit_are_refused(make_engine, washers, pixels, ending, make_model):
    for path in (washers / "train" / "good").iterdir():
        path.unlink()
        Image.fromarray(pixels).save(path.with_suffix(f".{ending}"))
    data = folder_data(washers)
    with pytest.raises(
        ValueError, match=rf"8 bit per channel, got 8 .*000.{ending}.* and 5 more.*Convert all to 8 bit"
    ):
        make_engine().fit(make_model(), datamodule=data)


def test_deep_images_that_anomalib_reads_right_are_learnt(make_engine, washers):
    pixels = np.asarray(Image.open(washers / "train" / "good" / "000.png").convert("L"))
    for dtype in (np.uint16, np.float32):
        Image.fromarray(pixels.astype(dtype)).save(washers / "train" / "good" / f"{dtype.__name__}.tiff")
    data = folder_data(washers)
    make_engine().fit(make_lamp_ae(max_steps=1), datamodule=data)
    read = {path: item.image for path, item in zip(data.train_data.samples.image_path, data.train_data, strict=True)}
    deep = [image for path, image in read.items() if path.endswith(".tiff")]
    assert len(deep) == 2
    for image in deep:
        np.testing.assert_allclose(image[0] * 255, pixels, atol=1.01)


@MODELS
def test_constant_training_images_are_refused(make_engine, washers, make_model):
    for path in (washers / "train" / "good").iterdir():
        Image.new("RGB", (64, 64), "black").save(path)
    with pytest.raises(ValueError, match=r"show something, got 8 of one colour.*000.png"):
        fit(make_engine, washers, make_model)


@MODELS
def test_a_few_constant_training_images_are_named(make_engine, washers, make_model):
    Image.new("RGB", (64, 64), (10, 90, 10)).save(washers / "train" / "good" / "002.png")
    with pytest.warns(UserWarning, match=r"1 of 8 training images are of one colour.*good/002\.png\. Replace"):
        fit(make_engine, washers, make_model)


@MODELS
def test_turned_photographs_are_named_once_in_training_and_test(make_engine, washers, make_model):
    turned = {turn_sideways(washers / name) for name in ("train/good/001.png", "test/good/000.png")}
    engine = make_engine()
    with pytest.warns(UserWarning, match="EXIF") as record:
        engine.train(make_model(max_steps=1), datamodule=make_parts(washers.parent))
    (warning,) = [text for text in texts(record) if "EXIF" in text]
    assert warning.startswith("2 of 16 images have an EXIF orientation")
    assert all(str(path) in warning for path in turned)
    assert "exif_transpose" in warning


def test_the_remedy_for_turned_photographs_works(make_engine, washers):
    path = turn_sideways(washers / "train" / "good" / "001.png")
    ImageOps.exif_transpose(Image.open(path)).save(path)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        fit(make_engine, washers)
    assert not [text for text in texts(record) if "EXIF" in text]


def test_a_warning_names_three_files_at_most(make_engine, washers):
    for path in (washers / "train" / "good").iterdir():
        turn_sideways(path)
    with pytest.warns(UserWarning, match="8 of 16 images have an EXIF orientation") as record:
        fit(make_engine, washers)
    (warning,) = [text for text in texts(record) if "EXIF" in text]
    assert warning.count("good/00") == 3
    assert "and 5 more" in warning


@MODELS
def test_misread_images_of_a_prediction_are_named(make_engine, parts, tmp_path, make_model):
    engine, model = make_engine(), make_model(max_steps=1)
    engine.fit(model, datamodule=parts)
    folder = shutil.copytree(parts.root / "washer" / "test" / "good", tmp_path / "new")
    Image.fromarray(GREY_16_BIT).save(folder / "deep.png")
    Image.new("RGB", (64, 64), "navy").save(folder / "blue.png")
    turn_sideways(folder / "000.png")
    with pytest.warns(UserWarning, match="EXIF") as record:
        engine.predict(model, dataset=PredictDataset(folder))
    found = [text for text in texts(record) if str(folder) in text]
    assert len(found) == 3
    assert re.search(r"got 1 of 16 bit .*new/deep\.png\. .*means nothing", found[0])
    assert re.match(r"1 of 6 images are of one colour.*new/blue\.png", found[1])
    assert re.match(r"1 of 6 images have an EXIF orientation: .*new/000\.png", found[2])


def test_misread_images_of_a_test_alone_are_named(make_engine, parts, washers):
    model = make_lamp_ae(max_steps=1)
    make_engine().fit(model, datamodule=parts)
    Image.fromarray(GREY_16_BIT).save(washers / "test" / "dent" / "000.png")
    with pytest.warns(UserWarning, match=r"got 1 of 16 bit .*test/dent/000\.png"):
        make_engine().test(model, datamodule=make_parts(washers.parent))


def test_a_file_that_a_prediction_cannot_read_is_named(make_engine, parts, tmp_path, caplog):
    engine, model = make_engine(), make_lamp_ae(max_steps=1)
    engine.fit(model, datamodule=parts)
    folder = shutil.copytree(parts.root / "washer" / "test" / "good", tmp_path / "new")
    truncate(folder / "002.png")
    loader = DataLoader(PredictDataset(folder), collate_fn=PredictDataset(folder).collate_fn)
    with caplog.at_level(logging.ERROR), pytest.raises(OSError, match=r"truncated|broken"):
        engine.predict(model, dataloaders=loader)
    assert f"Cannot be read: {folder / '002.png'} (OSError" in caplog.text


@MODELS
def test_a_file_that_no_anomaly_can_be_drawn_on_is_named(make_engine, washers, caplog, make_model):
    for path in (washers / "train" / "good").iterdir():
        truncate(path)
    parts = make_parts(washers.parent, val_split_mode="synthetic")
    with caplog.at_level(logging.ERROR), pytest.raises(OSError, match="truncated"):
        make_engine().fit(make_model(), datamodule=parts)
    assert f"Cannot be read: {washers / 'train' / 'good' / '000.png'} (OSError" in caplog.text


def test_compare_names_a_file_that_no_anomaly_can_be_drawn_on(washers):
    for path in (washers / "train" / "good").iterdir():
        truncate(path)
    data = {"root": str(washers.parent), "category": "washer", "num_workers": 0, "val_split_mode": "synthetic"}
    config = {"data": {"class_path": "anomalib.data.MVTecAD", "init_args": data}}
    with pytest.raises(ValueError, match=r"got 8 that cannot: .*train/good/000\.png \(OSError"):
        prepare(Job("washer", "Padim", {}, 0, "random", config))


def test_sound_images_give_no_warning(make_engine, parts):
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        engine = make_engine()
        engine.train(make_lamp_ae(max_steps=1), datamodule=parts)
    assert not [text for text in texts(record) if str(parts.root) in text]


def test_compare_checks_the_images_of_anomalibs_models(washers, tmp_path):
    for path in (washers / "train" / "good").iterdir():
        Image.fromarray(GREY_16_BIT).save(path)
    data = {"root": str(washers.parent), "category": "washer", "num_workers": 0}
    config = {
        "data": {"class_path": "anomalib.data.MVTecAD", "init_args": data},
        "model": {"class_path": "anomalib.models.Padim", "init_args": {"backbone": "resnet18", "pre_trained": False}},
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    }
    with pytest.raises(ValueError, match="8 bit per channel, got 8"):
        run_job(Job("washer", "Padim", {}, 0, "random", config), tmp_path / "work")


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_resized_constant_images_are_recognised(value):
    varied = torch.full((1, 3, 70, 90), value)
    varied[0, 1, 30:40, 30:40] += 0.1
    images = torch.cat([torch.full((1, 3, 70, 90), value), varied])
    assert are_constant(resize(images, [32, 32], antialias=True)).tolist() == [True, False]
