"""Measures how hard the drawn parts are: LampAE's plain reconstruction and PaDiM without pre-trained weights.

python benchmarks/synthetic_parts.py benchmarks/results/synthetic_parts.json    (a quarter of an hour on two cores)
"""

import json
import tempfile
from pathlib import Path

from anomalib.engine import Engine
from anomalib.models import Padim
from jsonargparse import auto_cli
from lightning import seed_everything

from anomalib_lamp import LampAE, SyntheticParts
from anomalib_lamp.benchmark.origin import describe_run
from anomalib_lamp.data.drawing import PARTS


def main(out: Path, max_steps: int = 300, seed: int = 0) -> None:
    """Train both models on every kind of part and write a JSON file after each.

    Args:
        out: Result file.
        max_steps: Optimisation steps of LampAE, 16 images of 128 x 128 each.
        seed: Seed of both models.
    """
    result = {**describe_run(), "max_steps": max_steps, "seed": seed, "image / pixel AUROC": {}}
    with tempfile.TemporaryDirectory() as folder:
        for category in PARTS:
            seed_everything(seed)
            models = {
                "LampAE": LampAE(
                    architecture="autoencoder",
                    depth=5,
                    corruption_strength=0.0,
                    map_metric="msgms",
                    smoothing=4.0,
                    calibration="none",
                    image_size=128,
                    max_steps=max_steps,
                    seed=seed,
                    visualizer=False,
                ),
                "Padim": Padim(pre_trained=False, visualizer=False),
            }
            for name, model in models.items():
                parts = SyntheticParts(root=Path(folder) / "parts", category=category, train_batch_size=16)
                metrics = Engine(accelerator="cpu", default_root_dir=folder).train(model, datamodule=parts)[0]
                figures = [round(metrics[key], 3) for key in ("image_AUROC", "pixel_AUROC")]
                result["image / pixel AUROC"].setdefault(category, {})[name] = figures
                out.write_text(json.dumps(result, indent=2) + "\n")
    print(out.read_text())


if __name__ == "__main__":
    auto_cli(main)
