"""An export says which package it lacks."""

import sys
from unittest.mock import Mock

import pytest
from anomalib.deploy import CompressionType, ExportType
from helpers import make_fine_tuned_gaussian, make_lamp_ae

MODELS = pytest.mark.parametrize("make_model", [make_lamp_ae, make_fine_tuned_gaussian])


def is_missing(monkeypatch, package):
    """Make a package impossible to import, whether it is installed or not."""
    monkeypatch.setitem(sys.modules, package, None)


@MODELS
@pytest.mark.parametrize("compression", ["int8", "int8_ptq", "int8_acq"])
def test_an_int8_export_without_nncf_says_what_to_install(make_engine, tmp_path, monkeypatch, make_model, compression):
    is_missing(monkeypatch, "nncf")
    with pytest.raises(ModuleNotFoundError, match=rf"needs nncf for compression_type {compression}.*pip install nncf"):
        make_engine().export(make_model(), "openvino", tmp_path, compression_type=CompressionType(compression))
    assert not list(tmp_path.rglob("*.xml"))


@MODELS
def test_an_openvino_export_without_openvino_says_what_to_install(make_engine, tmp_path, monkeypatch, make_model):
    is_missing(monkeypatch, "openvino")
    with pytest.raises(ModuleNotFoundError, match=r"needs openvino.*pip install openvino"):
        make_engine().export(make_model(), ExportType.OPENVINO, tmp_path)


@MODELS
@pytest.mark.parametrize("compression", [None, CompressionType.FP16])
def test_other_openvino_exports_need_no_nncf(make_engine, tmp_path, monkeypatch, make_model, compression):
    pytest.importorskip("openvino", reason="needs the extra anomalib-lamp[openvino]")
    is_missing(monkeypatch, "nncf")
    model = make_model()
    monkeypatch.setattr(model, "to_onnx", Mock(side_effect=InterruptedError("the export has begun")))
    with pytest.raises(InterruptedError):
        make_engine().export(model, "openvino", tmp_path, compression_type=compression)
