"""Folders that are not what `anomalib-lamp export` wrote."""

import json

import pytest
from anomalib_lamp_runtime import ExportError, Inspector
from anomalib_lamp_runtime.export_folder import ExportFolder


def edit(folder, **changes):
    metadata = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps(metadata | changes))


def test_an_altered_model_file_is_refused(altered):
    content = bytearray((altered / "model.onnx").read_bytes())
    content[-10] ^= 1
    (altered / "model.onnx").write_bytes(content)
    with pytest.raises(ExportError, match=r"model\.onnx with SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}: .* altered"):
        Inspector(altered)


def test_a_missing_model_file_is_refused(altered):
    (altered / "model.onnx").unlink()
    with pytest.raises(ExportError, match="Copy the whole folder again"):
        Inspector(altered)


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_an_export_of_another_version_is_refused(altered, version):
    edit(altered, format_version=version)
    with pytest.raises(ExportError, match=f"format version 1, got {version}"):
        Inspector(altered)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
def test_broken_metadata_are_refused(altered, text):
    (altered / "metadata.json").write_text(text)
    with pytest.raises(ExportError, match=r"metadata\.json"):
        Inspector(altered)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ExportError, match="a folder made by `anomalib-lamp export`"):
        Inspector(tmp_path / "nowhere")


def test_metadata_without_a_field_are_refused(altered):
    edit(altered, threshold={})
    with pytest.raises(ExportError, match=r"complete metadata in .*'image'"):
        Inspector(altered)


def test_a_format_that_was_not_exported_is_refused(exported):
    with pytest.raises(ExportError, match=r"one of the formats in .*: onnx, got 'openvino'"):
        Inspector(exported, backend="openvino")


def test_model_files_lie_in_the_folder(altered):
    edit(altered, files={"onnx": {"../exported/model.onnx": "0" * 64}})
    with pytest.raises(ExportError, match="names of files in the folder"):
        Inspector(altered)


def test_golden_samples_are_there(exported, altered):
    samples = list(ExportFolder(exported).golden_samples())
    assert [sample.photograph.name for sample in samples] == ["bad.png", "good.png"]
    assert [sample.anomalous for sample in samples] == [True, False]
    for file in (altered / "golden").iterdir():
        file.unlink()
    with pytest.raises(ExportError, match="Expected golden samples"):
        list(ExportFolder(altered).golden_samples())


def test_a_broken_golden_sample_is_refused(altered):
    (altered / "golden" / "bad.png.npz").write_bytes(b"no zip file")
    with pytest.raises(ExportError, match=r"bad\.png\.npz"):
        list(ExportFolder(altered).golden_samples())
