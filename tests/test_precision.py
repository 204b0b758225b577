"""Where bfloat16 is fast."""

import pytest
import torch

from anomalib_lamp.precision import has_fast_bfloat16


@pytest.mark.parametrize(
    ("capabilities", "fast"),
    [({}, False), ({"amx_bf16": False}, False), ({"amx_bf16": True}, True), ({"avx512_bf16": True}, True)],
)
def test_fast_bfloat16_on_the_processor_means_instructions_for_it(monkeypatch, capabilities, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_fast_bfloat16(torch.device("cpu")) is fast
