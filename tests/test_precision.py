"""Where bfloat16 is fast."""

import pytest
import torch

from anomalib_lamp.precision import has_fast_bfloat16


@pytest.mark.parametrize("capabilities", [{}, {"amx_bf16": False}, {"amx_bf16": True}])
def test_fast_bfloat16_on_the_processor_means_amx(monkeypatch, capabilities):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_fast_bfloat16(torch.device("cpu")) is capabilities.get("amx_bf16", False)
