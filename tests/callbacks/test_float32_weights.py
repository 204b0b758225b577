"""Weights are float32, whatever the trainer is asked for."""

import pytest
from helpers import make_lamp_ae


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_weights_other_than_float32_are_refused(make_engine, parts, precision):
    with pytest.raises(ValueError, match=f"32-true, bf16-mixed, 16-mixed, got {precision}"):
        make_engine(precision=precision).fit(make_lamp_ae(), datamodule=parts)
