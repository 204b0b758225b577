"""A test set without defects, or with nothing else, gives metrics that mean nothing: a warning says so, once."""

import shutil
import warnings

import pytest
from anomalib.data import Folder
from helpers import make_fine_tuned_gaussian, make_lamp_ae

MODELS = pytest.mark.parametrize("make_model", [make_lamp_ae, make_fine_tuned_gaussian])


def warnings_of_a_test(make_engine, root, make_model=make_lamp_ae, model_arguments=None, **folders):
    """Train, test, and return the printed metrics and the warnings of the test that speak of one kind."""
    data = Folder("washer", root=root, normal_dir="train/good", num_workers=0, eval_batch_size=1, **folders)
    engine, model = make_engine(), make_model(max_steps=1, **(model_arguments or {}))
    engine.fit(model, datamodule=data)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        metrics = engine.test(model, datamodule=data)
    return metrics[0], [str(warning.message) for warning in record if "mean nothing" in str(warning.message)]


@MODELS
def test_a_test_without_defects_is_told_once(make_engine, parts_root, make_model):
    root = parts_root / "washer"
    metrics, told = warnings_of_a_test(make_engine, root, make_model, normal_test_dir="test/good")
    assert metrics["image_AUROC"] == 0
    (text,) = told
    assert "got 2 good ones and 0 with defects" in text
    assert "image_AUROC" in text


def test_a_test_of_defects_only_is_told(make_engine, parts_root, tmp_path):
    shutil.copytree(parts_root / "washer", tmp_path / "washer")
    _, told = warnings_of_a_test(
        make_engine, tmp_path / "washer", abnormal_dir="test/dent", test_split_mode="from_dir", test_split_ratio=0.01
    )
    (text,) = told
    assert "got 0 good ones and 1 with defects" in text


def test_a_test_of_both_kinds_is_fine(make_engine, parts_root):
    _, told = warnings_of_a_test(
        make_engine, parts_root / "washer", normal_test_dir="test/good", abnormal_dir="test/dent"
    )
    assert not told


def test_without_metrics_there_is_nothing_to_tell(make_engine, parts_root):
    _, told = warnings_of_a_test(
        make_engine, parts_root / "washer", model_arguments={"evaluator": False}, normal_test_dir="test/good"
    )
    assert not told
