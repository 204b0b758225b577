"""Inspections by a model whose results can be worked out by hand."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from anomalib_lamp_runtime import ExportError, InspectionError, Inspector, Region
from anomalib_lamp_runtime.export_folder import sha256
from exports import BACKGROUND, MARK, draw_part

DARK, BRIGHT = 1 - MARK / 255, 1 - BACKGROUND / 255


def test_an_inspection_has_score_map_label_and_region_of_the_photograph(exported):
    result = Inspector(exported)(draw_part(width=640, height=240, mark=(160, 60, 320, 120)))
    expected = np.full((8, 8), BRIGHT, np.float32)
    expected[2:4, 2:4] = DARK
    np.testing.assert_allclose(result.anomaly_map, expected, atol=1e-6)
    assert result.anomaly_map.dtype == np.float32
    assert result.score == pytest.approx(DARK, abs=1e-6)
    assert result.raw_score == pytest.approx(2 * DARK, abs=1e-6)
    assert (result.threshold, result.anomalous) == (0.5, True)
    assert result.regions == (Region(160, 60, 320, 120, pytest.approx(DARK, abs=1e-6)),)


def test_a_good_part_has_no_region_and_no_alarm(exported):
    result = Inspector(exported)(draw_part())
    assert (result.anomalous, result.regions) == (False, ())
    assert result.score == pytest.approx(BRIGHT, abs=1e-6)
    assert result.brightness == pytest.approx(BACKGROUND / 255)
    assert result.sharpness == 0


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.3, 0.95, 1.0])
def test_a_given_threshold_decides_and_the_score_stays(exported, threshold):
    inspector = Inspector(exported, threshold=threshold)
    for image, score in ((draw_part(), BRIGHT), (draw_part(mark=(0, 0, 16, 16)), DARK)):
        result = inspector(image)
        assert result.score == pytest.approx(score, abs=1e-6)
        assert result.threshold == threshold
        assert result.anomalous == (score > threshold)


def test_a_file_a_picture_and_an_array_give_the_same(exported, tmp_path):
    inspector = Inspector(exported)
    image = draw_part(mark=(3, 5, 40, 20))
    image.save(tmp_path / "part.png")
    results = [inspector(x).as_dict() for x in (tmp_path / "part.png", str(tmp_path / "part.png"), image)]
    results.append(inspector(np.asarray(image)).as_dict())
    assert all(result == results[0] for result in results)


def test_what_it_says_can_be_written_as_json_without_the_map(exported):
    values = json.loads(json.dumps(Inspector(exported)(draw_part(mark=(0, 0, 16, 12))).as_dict()))
    fields = {"score", "raw_score", "threshold", "anomalous", "regions", "brightness", "sharpness"}
    assert set(values) == fields
    assert values["regions"] == [{"left": 0, "top": 0, "right": 16, "bottom": 12, "score": pytest.approx(DARK)}]


def test_threads_share_an_inspector(exported):
    inspector = Inspector(exported, threads=1)
    images = [draw_part(mark=(0, 0, 8 * i, 48)) if i % 3 else draw_part(30 + i, 20) for i in range(1, 8)]
    expected = [inspector(image).as_dict() for image in images]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda image: inspector(image).as_dict(), images * 20))
    assert results == expected * 20


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (3, 2), (999, 501)])
def test_photographs_of_any_size_are_inspected(exported, size):
    result = Inspector(exported)(draw_part(*size))
    assert result.score == pytest.approx(BRIGHT, abs=1e-6)
    assert result.heat_map(draw_part(*size)).size == size


def test_larger_photographs_than_allowed_are_refused(exported):
    with pytest.raises(InspectionError, match=r"1 to 100 pixels, got 11 x 10"):
        Inspector(exported, max_pixels=100)(draw_part(11, 10))


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_out_of_range_is_refused(exported, threshold):
    with pytest.raises(ValueError, match=r"threshold of the normalised score in \[0, 1\]"):
        Inspector(exported, threshold=threshold)


def test_an_unknown_backend_is_refused(exported):
    with pytest.raises(ValueError, match="one of the backends onnx, openvino, got 'tensorrt'"):
        Inspector(exported, backend="tensorrt")


@pytest.mark.parametrize("name", ["pred_score", "anomaly_map"])
def test_a_model_that_gives_no_finite_number_lets_no_part_pass(exported, monkeypatch, name):
    inspector = Inspector(exported)
    predict = inspector._predict
    monkeypatch.setattr(inspector, "_predict", lambda images: _with_nan(predict(images), name))
    with pytest.raises(InspectionError, match="a finite score and map"):
        inspector(draw_part())


def _with_nan(outputs, name):
    outputs[name].flat[0] = np.nan
    return outputs


def test_a_model_that_the_library_does_not_read_is_refused(altered):
    (altered / "model.onnx").write_bytes(b"no model")
    metadata = json.loads((altered / "metadata.json").read_text())
    metadata["files"]["onnx"]["model.onnx"] = sha256(b"no model")
    (altered / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ExportError, match="a model that the installed onnx library reads"):
        Inspector(altered)
