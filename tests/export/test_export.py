"""`anomalib-lamp export`: what is in the folder, and that the runtime predicts what the checkpoint predicts."""

import hashlib
import importlib.metadata
import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from anomalib.data import PredictDataset
from anomalib.data.utils import read_image
from anomalib_lamp_runtime import Inspector
from anomalib_lamp_runtime.commands.check import compare_golden_samples
from anomalib_lamp_runtime.photographs import measure, read_photograph

from anomalib_lamp import cli, export
from anomalib_lamp.export import golden

TOLERANCE = 1e-4


def predict(exported, photographs, make_engine):
    """Return what anomalib's Engine predicts from the checkpoint, by photograph."""
    dataset = PredictDataset(photographs[0])
    dataset.image_filenames = list(photographs)
    batches = make_engine().predict(exported.build(), dataset=dataset, ckpt_path=exported.checkpoint)
    assert [batch.image_path[0] for batch in batches] == [str(path) for path in photographs]
    return batches


def metadata(exported):
    return json.loads((exported.folder / "metadata.json").read_text())


@pytest.mark.parametrize("name", ["LampAE", "FineTunedGaussian", "Padim"])
def test_engine_and_runtime_agree_on_fifty_odd_photographs(name, export_model, odd_photographs, make_engine, caplog):
    caplog.set_level(logging.ERROR)
    exported = export_model(name)
    photographs = [*odd_photographs, *sorted(exported.images.glob("*.png"))]
    inspectors = {backend: Inspector(exported.folder, backend=backend) for backend in metadata(exported)["files"]}
    assert len(inspectors) == (2 if name == "LampAE" else 1)
    scores = []
    for photograph, batch in zip(photographs, predict(exported, photographs, make_engine), strict=True):
        for backend, inspector in inspectors.items():
            result = inspector(photograph)
            told = f"{photograph.name} with {backend}"
            assert result.score == pytest.approx(batch.pred_score.item(), abs=TOLERANCE), told
            np.testing.assert_allclose(result.anomaly_map, batch.anomaly_map.squeeze(), atol=TOLERANCE, err_msg=told)
            assert result.anomalous == batch.pred_label.item(), told
            scores.append(result.score)
    assert len(photographs) == 54
    assert np.ptp(scores) > 100 * TOLERANCE


def test_the_raw_score_is_that_of_the_network(lamp_ae):
    model = type(lamp_ae.build()).load_from_checkpoint(lamp_ae.checkpoint).eval()
    for photograph in sorted(lamp_ae.images.glob("*.png")):
        with torch.no_grad():
            image = model.pre_processor.transform(read_image(photograph, as_tensor=True)[None])
            expected = model.model(image).pred_score.item()
        assert Inspector(lamp_ae.folder)(photograph).raw_score == pytest.approx(expected, abs=TOLERANCE)


def test_the_metadata_tell_thresholds_files_and_versions(lamp_ae):
    found = metadata(lamp_ae)
    state = torch.load(lamp_ae.checkpoint, weights_only=True)["state_dict"]
    assert found["format_version"] == 1
    assert (found["model"], found["classes"], found["image_size"]) == ("LampAE", ["normal", "anomalous"], [64, 64])
    for level in ("image", "pixel"):
        expected = {"raw": state[f"post_processor._{level}_threshold"].item(), "normalised": 0.5}
        assert found["threshold"][level] == expected
    assert found["normalisation"]["class"] == "OddsPostProcessor"
    assert found["normalisation"]["image_max"] == state["post_processor.image_max"].item()
    assert {name: list(hashes) for name, hashes in found["files"].items()} == {
        "onnx": ["model.onnx"],
        "openvino": ["model.xml", "model.bin"],
    }
    for name, digest in (found["files"]["onnx"] | found["files"]["openvino"]).items():
        assert hashlib.sha256((lamp_ae.folder / name).read_bytes()).hexdigest() == digest
    assert found["versions"]["torch"] == importlib.metadata.version("torch")


def test_the_reference_is_measured_on_the_normal_photographs(lamp_ae, make_engine):
    photographs = sorted(lamp_ae.images.glob("*.png"))
    reference = metadata(lamp_ae)["reference"]
    scores = [batch.pred_score.item() for batch in predict(lamp_ae, photographs, make_engine)]
    assert reference["score"] == pytest.approx(scores, abs=1e-6)
    looks = [measure(read_photograph(photograph)) for photograph in photographs]
    assert list(zip(reference["brightness"], reference["sharpness"], strict=True)) == looks
    assert len(reference["raw_score"]) == len(photographs) == 4


def test_golden_samples_are_photographs_with_what_the_checkpoint_predicts(lamp_ae, make_engine):
    samples = sorted((lamp_ae.folder / "golden").glob("*.npz"))
    photographs = [sample.with_suffix("") for sample in samples]
    assert [photograph.name for photograph in photographs] == ["damaged.png", "highest.png", "lowest.png", "median.png"]
    originals = {path.read_bytes() for path in lamp_ae.images.glob("*.png")}
    assert [photograph.read_bytes() in originals for photograph in photographs] == [False, True, True, True]
    for sample, batch in zip(samples, predict(lamp_ae, photographs, make_engine), strict=True):
        values = np.load(sample)
        assert values["score"] == pytest.approx(batch.pred_score.item(), abs=1e-6)
        assert values["anomalous"] == batch.pred_label.item()
        np.testing.assert_allclose(values["anomaly_map"], batch.anomaly_map.squeeze(), atol=1e-6)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_the_golden_samples_are_equal_here(lamp_ae, backend):
    comparisons = list(compare_golden_samples(Inspector(lamp_ae.folder, backend=backend)))
    assert len(comparisons) == 4
    assert all(comparison.equal and comparison.map_difference < TOLERANCE for comparison in comparisons)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_threads_share_an_inspector(lamp_ae, backend):
    inspector = Inspector(lamp_ae.folder, backend=backend)
    photographs = sorted((lamp_ae.folder / "golden").glob("*.png"))
    expected = [inspector(photograph).as_dict() for photograph in photographs]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda photograph: inspector(photograph).as_dict(), photographs * 25))
    assert [result["score"] for result in results] == pytest.approx([x["score"] for x in expected] * 25, abs=1e-6)


def test_an_export_that_predicts_something_else_is_not_kept(lamp_ae, tmp_path, monkeypatch):
    def other(*arguments):
        return [replace(prediction, score=prediction.score + 0.002) for prediction in predictions(*arguments)]

    def copy(folder, *_):
        (folder / "model.onnx").write_bytes((lamp_ae.folder / "model.onnx").read_bytes())
        return {"onnx": metadata(lamp_ae)["files"]["onnx"]}

    predictions = golden.predict
    monkeypatch.setattr(golden, "predict", other)
    monkeypatch.setattr(export, "write_model_files", copy)
    with pytest.raises(
        ValueError, match=r"predict what the checkpoint predicts, got .*lowest.png.*Nothing was exported"
    ):
        export.export(lamp_ae.checkpoint, tmp_path / "exported", lamp_ae.images)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


def test_an_existing_folder_is_not_overwritten(lamp_ae, tmp_path):
    with pytest.raises(FileExistsError, match="a folder that does not exist"):
        export.export(lamp_ae.checkpoint, tmp_path, lamp_ae.images)


def test_photographs_are_needed(lamp_ae, tmp_path):
    with pytest.raises(ValueError, match="photographs of normal parts"):
        export.export(lamp_ae.checkpoint, tmp_path / "exported", tmp_path)


@pytest.mark.parametrize("name", ["LampEA", "anomalib.models.Nothing", "json.JSONDecoder"])
def test_the_class_must_be_a_model(lamp_ae, tmp_path, name):
    with pytest.raises(ValueError, match=f"name or dotted path of an anomalib model.* got '{name}'"):
        export.export(lamp_ae.checkpoint, tmp_path / "exported", lamp_ae.images, model=name)


def test_the_checkpoint_must_be_of_the_class(lamp_ae, tmp_path):
    with pytest.raises(ValueError, match="Expected a checkpoint of FineTunedGaussian"):
        export.export(lamp_ae.checkpoint, tmp_path / "exported", lamp_ae.images, model="FineTunedGaussian")
    (tmp_path / "broken.ckpt").write_bytes(b"broken")
    with pytest.raises(ValueError, match="Expected a checkpoint of LampAE"):
        export.export(tmp_path / "broken.ckpt", tmp_path / "exported", lamp_ae.images)


def test_a_checkpoint_without_a_threshold_is_refused(lamp_ae, tmp_path):
    checkpoint = torch.load(lamp_ae.checkpoint, weights_only=True)
    for level in ("image", "pixel"):
        checkpoint["state_dict"][f"post_processor._{level}_threshold"].fill_(torch.nan)
    torch.save(checkpoint, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match="Expected a checkpoint with a threshold"):
        export.export(tmp_path / "model.ckpt", tmp_path / "exported", lamp_ae.images)


def test_the_command_says_what_is_wrong_on_one_line(lamp_ae, tmp_path, monkeypatch, capsys):
    words = ["export", "--ckpt", lamp_ae.checkpoint, "--images", tmp_path, "--to", tmp_path / "exported"]
    monkeypatch.setattr("sys.argv", ["anomalib-lamp", *map(str, words)])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert capsys.readouterr().err.startswith("Expected a folder with photographs of normal parts")


def test_the_command_says_that_it_needs_the_runtime(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["anomalib-lamp", "export"])
    monkeypatch.delitem(sys.modules, "anomalib_lamp.export")
    monkeypatch.setitem(sys.modules, "anomalib_lamp_runtime", None)
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "pip install ./runtime" in capsys.readouterr().err


@pytest.mark.parametrize(("missing", "arguments"), [("onnxscript", {}), ("openvino", {"openvino": True})])
def test_a_missing_package_is_named_before_anything_is_read(tmp_path, monkeypatch, missing, arguments):
    monkeypatch.setattr("anomalib_lamp.models.host.find_spec", lambda name: None if name == missing else name)
    with pytest.raises(ModuleNotFoundError, match=f"needs {missing}, which is not installed: pip install {missing}"):
        export.export(tmp_path / "model.ckpt", tmp_path / "exported", tmp_path, **arguments)


def test_of_many_photographs_a_thousand_are_taken(tmp_path):
    for index in range(1500):
        (tmp_path / f"{index:04}.png").touch()
    files = export.image_files(tmp_path)
    assert len(set(files)) == 1000
    assert (files[0].name, files[-1].name) == ("0000.png", "1499.png")
