"""Kills `anomalib-lamp compare` and its workers at random moments; counts results lost, jobs unrecorded, records torn.

python benchmarks/kill_compare.py benchmarks/results/kill_compare.json    (ten minutes on two cores)
"""

import json
import multiprocessing
import os
import random
import signal
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import yaml
from jsonargparse import auto_cli

from anomalib_lamp.compare.environment import describe_run
from anomalib_lamp.compare.records import ResultFolder, finished
from anomalib_lamp.compare.runner import compare

SPEC = {
    "data": {"parts": {"class_path": "SyntheticParts", "init_args": {"size": 64, "num_train": 8, "num_workers": 0}}},
    "models": {"lamp_ae": {"class_path": "LampAE", "init_args": {"width": 4, "image_size": 64, "max_steps": 1}}},
    "trainer": {"accelerator": "cpu"},
    "measure": {"latency_batch_sizes": [1], "latency_image_size": 64},
}
SIGNALS = (signal.SIGKILL, signal.SIGTERM)


def main(out: Path, kills: int = 50, minutes: float = 10, longest: float = 8, seed: int = 0) -> None:
    """Kill a sweep and its workers, start it again, and so on; then let it end, and write a JSON file.

    Args:
        out: Result file.
        kills: How often the runner is killed with signal 9.
        minutes: Nothing is killed after this time.
        longest: A runner is killed at most so many seconds after its first job began; one in five before that.
        seed: Of the times, the workers and the signals.
    """
    draw, run = random.Random(seed), describe_run()
    end = time.monotonic() + 60 * minutes
    counts = {"runners killed": 0, "workers killed": 0, "lost": 0, "changed": 0, "unrecorded": 0, "torn": 0}
    with tempfile.TemporaryDirectory() as folder:
        results = ResultFolder(Path(folder) / "out")
        kept: dict[str, str] = {}
        while counts["runners killed"] < kills and time.monotonic() < end:
            jobs = len(kept) + 20  # more than it will finish; never fewer than before
            runner = start(folder, jobs)
            if draw.random() < 0.2:
                runner.join(draw.uniform(0, longest))
            else:
                counts["workers killed"] += kill_workers(runner, results, draw, longest)
            if runner.is_alive():
                runner.kill()
                runner.join()
                counts["runners killed"] += 1
            time.sleep(0.5)
            kept = look(results, kept, counts)
            print(f"{counts}, {len(kept)} results", flush=True)
        start(folder, jobs).join()
        look(results, kept, counts)
        records = results.records()
    counts |= {
        "jobs": jobs,
        "records": len(records),
        "finished": len(finished(records)),
        "finished after more than one start": sum(record.attempt > 1 for record in finished(records)),
    }
    out.write_text(json.dumps({**run, "seed": seed, **counts}, indent=2) + "\n")
    print(out.read_text())


def start(folder: str, jobs: int) -> BaseProcess:
    """Start a runner on a sweep of so many jobs."""
    path = Path(folder) / "spec.yaml"
    spec = SPEC | {"seeds": list(range(jobs))}
    spec["data"]["parts"]["init_args"]["root"] = folder
    path.write_text(yaml.dump(spec))
    arguments = {"spec": path, "out": Path(folder) / "out", "processes": 2, "quiet": True}
    runner = multiprocessing.get_context("forkserver").Process(target=compare, kwargs=arguments)
    runner.start()
    return runner


def kill_workers(runner: BaseProcess, results: ResultFolder, draw: random.Random, longest: float) -> int:
    """Wait for the first job of a runner, kill workers for a while, and return how many."""
    before, killed = {path: path.stat().st_mtime_ns for path in results.root.glob("jobs/*.json")}, 0
    while runner.is_alive() and before == {path: path.stat().st_mtime_ns for path in results.root.glob("jobs/*.json")}:
        time.sleep(0.1)
    end = time.monotonic() + draw.uniform(0, longest)
    while runner.is_alive() and time.monotonic() < end:
        time.sleep(draw.uniform(0, 2))
        workers = [worker for child in children(runner.pid) for worker in children(child)]  # between is the fork server
        if workers:
            os.kill(draw.choice(workers), draw.choice(SIGNALS))
            killed += 1
    return killed


def children(process: int) -> list[int]:
    """Return the children of a process of this Linux machine; none if it has ended."""
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []


def look(results: ResultFolder, kept: dict[str, str], counts: dict[str, int]) -> dict[str, str]:
    """Return the lines of all finished records after comparing them with those seen before."""
    damage: list[str] = []
    records = results.records(damage)
    lines = {record.job: results.record_path(record.job).read_text() for record in finished(records)}
    begun = {path.name for path in (results.root / "work").glob("*")}
    counts["torn"] += len(damage)
    counts["unrecorded"] += len(begun - {record.job for record in records})
    counts["lost"] += len(kept.keys() - lines.keys())
    counts["changed"] += sum(lines.get(job, line) != line for job, line in kept.items())
    return lines


if __name__ == "__main__":
    multiprocessing.get_context("forkserver").set_forkserver_preload([compare.__module__])
    auto_cli(main)
