"""Measures how long a sweep of 1,000 finished jobs takes to find nothing to do, and its report to be written.

python benchmarks/compare_scale.py benchmarks/results/compare_scale.json
"""

import json
import random
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import yaml
from jsonargparse import auto_cli

from anomalib_lamp.compare.environment import describe_origin, describe_run
from anomalib_lamp.compare.job import Job, identity
from anomalib_lamp.compare.records import Cost, ImageScore, Latency, Metrics, Record, ResultFolder
from anomalib_lamp.compare.runner import compare
from anomalib_lamp.compare.spec import read_spec
from anomalib_lamp.report import report

LOSSES, OPTIMIZERS = ["l1", "l2", "ssim", "msgms"], ["sgd", "rmsprop", "adam", "adamw"]
KINDS = ["good", "scratch", "dent", "hole"]


def main(out: Path, images: int = 100) -> None:
    """Make up the results of 1,024 jobs, start the sweep again, make its report, and write a JSON file.

    Args:
        out: Result file.
        images: Number of test images of a job.
    """
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        spec, results = write_spec(Path(folder)), ResultFolder(Path(folder) / "out")
        jobs = read_spec(spec)
        for job in jobs:
            results.write(make_up(job, images, draw))
        seconds = {
            "nothing to do": timed(lambda: compare(spec, out=results.root, quiet=True)),
            "report": timed(lambda: report(results.root)),
        }
    figures = {"jobs": len(jobs), "seconds": seconds, "limits": {"nothing to do": 2, "report": 30}}
    out.write_text(json.dumps({**describe_run(), **figures}, indent=2) + "\n")
    print(out.read_text())


def write_spec(folder: Path) -> Path:
    """Write a spec of 1,024 jobs: 4 data sets, 32 models, 8 seeds."""
    categories = ["washer", "connector", "fabric", "tablets"]
    spec = {
        "data": {"parts": {"class_path": "SyntheticParts", "grid": {"category": categories}}},
        "models": {
            "lamp_ae": {
                "class_path": "LampAE",
                "grid": {"base_loss": LOSSES, "optimizer": OPTIMIZERS, "amplify": [True, False]},
            }
        },
        "seeds": list(range(8)),
    }
    path = folder / "spec.yaml"
    path.write_text(yaml.dump(spec))
    return path


def make_up(job: Job, images: int, draw: random.Random) -> Record:
    """Return a record of a job that was never run."""
    scores = [
        ImageScore(path=f"{index:03}.png", kind=KINDS[index % 4], anomalous=index % 4 > 0, score=draw.random())
        for index in range(images)
    ]
    quality = {name: draw.uniform(0.6, 1) for name in Metrics.model_fields}
    latency = [Latency(batch_size=size, image_size=256, median_ms=10.0 * size, iqr_ms=1, runs=9) for size in (1, 32)]
    cost = Cost(
        train_seconds=60, test_seconds=5, total_seconds=70, epochs=9, steps=99, peak_rss_mib=999, parameters=10**6,
        exported_mib=4, latency=latency,
    )  # fmt: skip
    return Record(
        **identity(job),
        status="finished",
        metrics=Metrics(**quality),
        images=scores,
        cost=cost,
        origin=describe_origin(datetime.now(timezone.utc), "cpu"),
    )


def timed(function) -> float:
    """Call a function and return how many seconds it took."""
    begun = time.perf_counter()
    function()
    return round(time.perf_counter() - begun, 2)


if __name__ == "__main__":
    auto_cli(main)
