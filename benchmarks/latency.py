"""Measures the time of one prediction at 256 x 256, batch 1: LampAE beside anomalib's PaDiM ResNet-18, in the same run.

python benchmarks/latency.py benchmarks/results/latency.json    (a minute)
"""

import json
import statistics
import tempfile
from pathlib import Path

from anomalib.engine import Engine
from anomalib.models import Padim
from jsonargparse import auto_cli

from anomalib_lamp import LampAE, SyntheticParts
from anomalib_lamp.compare.environment import describe_run
from anomalib_lamp.compare.measure import measure_latency


def main(out: Path, rounds: int = 5) -> None:
    """Fit both models to a few images, time them by turns, and write a JSON file.

    Args:
        out: Result file.
        rounds: How often each model is timed.
    """
    models = {
        "LampAE": LampAE(max_steps=1, calibration="location", seed=0, visualizer=False),
        "PaDiM ResNet-18": Padim(pre_trained=False, visualizer=False),
    }
    with tempfile.TemporaryDirectory() as folder:
        for model in models.values():
            parts = SyntheticParts(root=folder, num_train=8, num_test_good=2, num_test_per_defect=1, num_workers=0)
            Engine(accelerator="cpu", default_root_dir=folder, logger=False).fit(model, datamodule=parts)
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            times[name].append(measure_latency(model, [1], 256)[0].median_ms)
    medians = {name: round(statistics.median(values), 2) for name, values in times.items()}
    result = {
        **describe_run(),
        "median ms": medians,
        "median ms of every round": {name: [round(value, 2) for value in values] for name, values in times.items()},
        "ratio": round(medians["LampAE"] / medians["PaDiM ResNet-18"], 3),
        "parameters of LampAE": sum(parameter.numel() for parameter in models["LampAE"].parameters()),
    }
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(out.read_text())


if __name__ == "__main__":
    auto_cli(main)
