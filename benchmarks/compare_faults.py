"""Kills `anomalib-lamp compare` at random moments, and counts what was lost, done twice or torn.

python benchmarks/compare_faults.py benchmarks/results/compare_faults.json    (about a quarter of an hour on two cores)
"""

import json
import multiprocessing
import random
import tempfile
import time
from pathlib import Path

import yaml
from jsonargparse import auto_cli

from anomalib_lamp.compare.environment import describe_run
from anomalib_lamp.compare.records import ResultFolder, read_records
from anomalib_lamp.compare.runner import compare

SPEC = {
    "data": {"parts": {"class_path": "SyntheticParts", "init_args": {"size": 64, "num_train": 8, "num_workers": 0}}},
    "models": {"lamp_ae": {"class_path": "LampAE", "init_args": {"width": 4, "image_size": 64, "max_steps": 1}}},
    "trainer": {"accelerator": "cpu"},
    "measure": {"latency_batch_sizes": [1], "latency_image_size": 64},
}


def main(out: Path, kills: int = 50, longest: float = 25.0, seed: int = 0) -> None:
    """Kill a sweep, start it again, and so on; then let it end, and write a JSON file.

    Args:
        out: Result file.
        kills: How often the runner is killed with signal 9.
        longest: A runner is killed after a time between 0 and this, in seconds.
        seed: Of the times.
    """
    draw = random.Random(seed)
    counts = {"kills": 0, "lost": 0, "changed": 0, "torn": 0}
    with tempfile.TemporaryDirectory() as folder:
        results = ResultFolder(Path(folder) / "out")
        kept: dict[str, str] = {}
        while counts["kills"] < kills:
            runner = start(folder, jobs=len(kept) + 20)
            runner.join(draw.uniform(0, longest))
            if runner.is_alive():
                runner.kill()
                runner.join()
                counts["kills"] += 1
            time.sleep(0.5)
            kept = look(results, kept, counts)
            print(f"{counts}, {len(kept)} results", flush=True)
        start(folder, jobs=len(kept) + 2).join()
        records = read_records(results.collect())
    counts |= {
        "results": len(records),
        "jobs with two results": len(records) - len({record.seed for record in records}),
        "jobs finished after more than one start": sum(record.attempt > 1 for record in records),
        "not finished": sum(record.status != "finished" for record in records),
    }
    out.write_text(json.dumps({**describe_run(), "seed": seed, **counts}, indent=2) + "\n")
    print(out.read_text())


def start(folder: str, jobs: int) -> multiprocessing.process.BaseProcess:
    """Start a runner on a sweep of so many jobs."""
    path = Path(folder) / "spec.yaml"
    spec = SPEC | {"seeds": list(range(jobs))}
    spec["data"]["parts"]["init_args"]["root"] = folder
    path.write_text(yaml.dump(spec))
    arguments = {"spec": path, "out": Path(folder) / "out", "quiet": True}
    runner = multiprocessing.get_context("forkserver").Process(target=compare, kwargs=arguments)
    runner.start()
    return runner


def look(results: ResultFolder, kept: dict[str, str], counts: dict[str, int]) -> dict[str, str]:
    """Return the lines of all records after comparing them with those seen before."""
    lines = {path.stem: path.read_text() for path in (results.root / "jobs").glob("*.json")}
    counts["torn"] += sum(not line.endswith("}\n") for line in lines.values())
    counts["lost"] += len(kept.keys() - lines.keys())
    counts["changed"] += sum(lines.get(job, line) != line for job, line in kept.items())
    results.records()  # raises if one does not follow the schema
    return lines


if __name__ == "__main__":
    multiprocessing.get_context("forkserver").set_forkserver_preload([compare.__module__])
    auto_cli(main)
