"""LampAE on photographs: a short training finds defects far better than chance."""

import pytest
from anomalib.engine import Engine

from anomalib_lamp import LampAE, MVTec


@pytest.mark.slow
@pytest.mark.parametrize("category", ["bottle"])
def test_finds_defects_on_mvtec(shared_data, tmp_path, category):
    if not (shared_data / "MVTecAD" / category).is_dir():
        pytest.skip(f"no {category} in {shared_data / 'MVTecAD'}")
    model = LampAE(image_size=128, max_steps=120, seed=0, visualizer=False)
    data = MVTec(root=shared_data / "MVTecAD", category=category, train_batch_size=16, num_workers=0)
    metrics = Engine(accelerator="cpu", default_root_dir=tmp_path).train(model, datamodule=data)[0]
    assert metrics["image_AUROC"] > 0.85
    assert metrics["pixel_AUROC"] > 0.75
