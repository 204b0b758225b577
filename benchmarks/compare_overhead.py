"""Measures what `anomalib-lamp compare` costs beside a plain loop of Engine.fit and Engine.test, in one run.

python benchmarks/compare_overhead.py benchmarks/results/compare_overhead.json    (seven minutes on two cores)
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import yaml
from anomalib.engine import Engine
from jsonargparse import auto_cli
from lightning import seed_everything

from anomalib_lamp import LampAE, SyntheticParts
from anomalib_lamp.compare.environment import describe_run
from anomalib_lamp.compare.executors import LocalExecutor
from anomalib_lamp.compare.records import ResultFolder
from anomalib_lamp.compare.spec import read_spec

PARTS = {"num_train": 64, "num_workers": 0, "val_split_mode": "synthetic", "val_split_ratio": 0.1}


def main(out: Path, jobs: int = 3, max_steps: int = 150) -> None:
    """Run the same jobs by turns in both ways and write a JSON file.

    The first of each is left out: it pays for imports and warm-up. Latency and export are off, the plain loop has none.

    Args:
        out: Result file.
        jobs: How many trainings each way is timed for.
        max_steps: Length of a training.
    """
    with tempfile.TemporaryDirectory() as folder:
        SyntheticParts(root=folder, **PARTS).prepare_data()
        pending = read_spec(write_spec(Path(folder), jobs + 1, max_steps))
        sweep = LocalExecutor().run(pending, Path(folder) / "out")
        pairs = []
        for job in pending:
            plain = timed(lambda seed=job.seed: train_plainly(folder, max_steps, seed))
            ours = timed(lambda: next(event for event in sweep if event.state != "started"))
            pairs.append((plain, ours))
            print(f"plain {plain:.1f} s, compare {ours:.1f} s", flush=True)
        records = ResultFolder(Path(folder) / "out").records()
    assert all(record.status == "finished" for record in records)
    ratios = [ours / plain for plain, ours in pairs[1:]]
    result = {
        **describe_run(),
        "seconds of a job, plain and compare": [[round(seconds, 2) for seconds in pair] for pair in pairs[1:]],
        "median ratio": round(statistics.median(ratios), 4),
    }
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(out.read_text())


def write_spec(folder: Path, jobs: int, max_steps: int) -> Path:
    """Write the spec of the sweep."""
    path = folder / "spec.yaml"
    spec = {
        "data": {"parts": {"class_path": "SyntheticParts", "init_args": {"root": str(folder), **PARTS}}},
        "models": {"lamp_ae": {"class_path": "LampAE", "init_args": {"image_size": 128, "max_steps": max_steps}}},
        "seeds": list(range(jobs)),
        "trainer": {"accelerator": "cpu"},
        "measure": {"latency_batch_sizes": [], "export": False},
    }
    path.write_text(yaml.dump(spec))
    return path


def train_plainly(folder: str, max_steps: int, seed: int) -> None:
    """Train and test as one would without the tool."""
    seed_everything(seed, workers=True, verbose=False)
    parts = SyntheticParts(root=folder, seed=seed, **PARTS)
    model = LampAE(image_size=128, max_steps=max_steps, seed=seed, visualizer=False)
    engine = Engine(accelerator="cpu", default_root_dir=Path(folder) / "plain" / str(seed), logger=False)
    engine.fit(model, datamodule=parts)
    engine.test(model, datamodule=parts)


def timed(function) -> float:
    """Call a function and return how many seconds it took."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


if __name__ == "__main__":
    auto_cli(main)
