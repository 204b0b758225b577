"""Kills trainings of LampAE at random moments and resumes them; counts those that do not end as without the kill.

python benchmarks/kill_training.py benchmarks/results/kill_training.json    (ten minutes on two cores)
"""

import json
import multiprocessing
import random
import tempfile
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from anomalib.engine import Engine
from jsonargparse import auto_cli
from torch import Tensor

from anomalib_lamp import LampAE, SyntheticParts
from anomalib_lamp.compare.environment import describe_run

STEPS = 200


def main(out: Path, kills: int = 20, seed: int = 0) -> None:
    """Train once without interruption, then kill a training so many times, each at a random moment, and resume it.

    Args:
        out: Result file.
        kills: How many trainings are killed with signal 9.
        seed: Of the moments.
    """
    draw, run, counts = random.Random(seed), describe_run(), Counter({"killed": 0, "equal": 0, "without a file": 0})
    steps: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        start(root, "unbroken").join()  # draws the parts, too
        begun = time.monotonic()
        start(root, "unbroken").join()
        seconds = time.monotonic() - begun
        expected = final_weights(root / "unbroken")
        while counts["killed"] < kills:
            name = f"killed_{len(steps)}_{time.monotonic_ns()}"
            training = start(root, name)
            training.join(draw.uniform(0.1, 1.0) * seconds)
            if not training.is_alive():
                continue
            training.kill()
            training.join()
            counts["killed"] += 1
            saved = next((root / name).rglob("resume.ckpt"), None)
            step = 0 if saved is None else torch.load(saved, weights_only=False)["global_step"]
            steps.append(step)
            counts["without a file"] += saved is None
            start(root, f"{name}_resumed", saved).join()
            counts["equal"] += same(final_weights(root / f"{name}_resumed"), expected)
            print(dict(counts), "resumed from step", step, flush=True)
    result = {**run, "seed": seed, "steps": STEPS, **counts, "resumed from step": steps}
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(out.read_text())


def start(root: Path, name: str, resumed: Path | None = None) -> BaseProcess:
    """Start a training in a process of its own."""
    process = multiprocessing.get_context("forkserver").Process(target=train, args=(root, name, resumed))
    process.start()
    return process


def train(root: Path, name: str, resumed: Path | None) -> None:
    """Train a small LampAE with features on drawn parts."""
    torch.set_num_threads(1)
    parts = SyntheticParts(root=root / "parts", size=64, num_train=24, num_test_good=4, num_test_per_defect=1)
    parts.num_workers, parts.train_batch_size = 0, 4
    model = LampAE(width=4, depth=3, image_size=64, max_steps=STEPS, seed=0, visualizer=False)
    options = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False}
    Engine(default_root_dir=root / name, **options).fit(model, datamodule=parts, ckpt_path=resumed)


def final_weights(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of the newest model of a folder."""
    newest = max(folder.rglob("model.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    state = torch.load(newest, weights_only=False)
    assert state["global_step"] == STEPS, state["global_step"]
    return {name: value for name, value in state["state_dict"].items() if isinstance(value, Tensor)}


def same(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    """Return whether all tensors are equal to the last bit."""
    return weights.keys() == expected.keys() and all(torch.equal(weights[name], expected[name]) for name in expected)


if __name__ == "__main__":
    multiprocessing.get_context("forkserver").set_forkserver_preload(["anomalib_lamp", "anomalib.engine"])
    auto_cli(main)
