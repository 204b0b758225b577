"""Measures `serve` with 1, 4 and 16 clients, and kills `watch` while photographs arrive; counts losses and mix-ups.

python benchmarks/runtime_line.py EXPORTED benchmarks/results/runtime_line.json    (eight minutes on two cores)
"""

import io
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
from anomalib_lamp_runtime import Inspector
from anomalib_lamp_runtime.drift import QUANTITIES, RATE, WINDOW, critical_distance
from anomalib_lamp_runtime.photographs import read_photograph
from jsonargparse import auto_cli
from PIL import Image

from anomalib_lamp.compare.environment import describe_run

COMMAND = [sys.executable, "-m", "anomalib_lamp_runtime"]
CLIENTS = (1, 4, 16)
REFERENCES = (20, 50, 100, 200, 1000)  # normal images in an export
INSTALLATIONS, WINDOWS = 400, 4000
SHIFTS = (0.5, 0.75, 1.0)  # standard deviations
SETTLE = 0.3  # seconds
TOLERANCE = 1e-5  # of a score, against that of the inspector alone


@dataclass(frozen=True)
class Sample:
    """A photograph that no other has the brightness of, and what an inspector alone says of it."""

    content: bytes
    score: float
    brightness: float

    def is_meant_by(self, answer: dict) -> bool:
        """Return whether an answer, or a line, is that of this photograph."""
        brightness, score = answer.get("brightness", np.nan), answer.get("score", np.nan)
        return brightness == self.brightness and abs(score - self.score) <= TOLERANCE


def main(model: Path, out: Path, requests: int = 240, kills: int = 20, workers: int = 2, seed: int = 0) -> None:
    """Run both and write a JSON file.

    Args:
        model: Folder of the exported model.
        out: Result file.
        requests: Requests for each number of clients.
        kills: How often `watch` is killed with signal 9.
        workers: Inspections that `serve` does at a time.
        seed: Of the times of the kills and of the arrivals.
    """
    run, inspector = describe_run(), Inspector(model)
    samples = make_samples(inspector)
    result = {
        **run,
        "model": inspector.export.metadata["model"],
        "image_size": inspector.export.metadata["image_size"],
        "photographs": f"{len(samples)} PNG files of {len(samples[0].content) / 1e6:.2f} MB on average",
        "workers": workers,
        "load average at the start": round(os.getloadavg()[0], 1),
        "serve": measure_serve(model, samples, requests, workers),
        "watch": kill_watch(model, samples, kills, random.Random(seed)),
        "drift": [simulate_drift(references, np.random.default_rng(seed)) for references in REFERENCES],
    }
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(out.read_text())


def make_samples(inspector: Inspector, count: int = 48) -> list[Sample]:
    """Return the golden photographs of an export at many brightnesses."""
    originals = [read_photograph(sample.photograph) for sample in inspector.export.golden_samples()]
    samples = []
    for number, image in zip(range(count), itertools.cycle(originals), strict=False):
        image = Image.fromarray((np.asarray(image) * (1 - number / 4 / count)).astype(np.uint8))
        content = io.BytesIO()
        image.save(content, format="PNG", compress_level=1)
        inspection = inspector(image)
        samples.append(Sample(content.getvalue(), inspection.score, inspection.brightness))
    assert len({sample.brightness for sample in samples}) == count
    return samples


def measure_serve(model: Path, samples: list[Sample], requests: int, workers: int) -> list[dict]:
    """Return a row for each number of clients: requests a second, times in ms, answers by what they were."""
    rows = []
    with serving(model, workers) as address:
        for clients in CLIENTS:
            begun = time.perf_counter()
            with ThreadPoolExecutor(clients) as pool:
                answers = list(pool.map(lambda sample: ask(address, sample), samples * (requests // len(samples))))
            seconds = time.perf_counter() - begun
            times = [1000 * time_taken for _, time_taken in answers]
            rows.append(
                {
                    "clients": clients,
                    "requests": len(answers),
                    "requests a second": round(len(answers) / seconds, 1),
                    "p50 ms": round(float(np.percentile(times, 50)), 1),
                    "p99 ms": round(float(np.percentile(times, 99)), 1),
                    **{kind: sum(found == kind for found, _ in answers) for kind in ("right", "lost", "mixed up")},
                }
            )
            print(rows[-1], flush=True)
    return rows


@contextmanager
def serving(model: Path, workers: int) -> Iterator[tuple[str, int]]:
    """Yield the address of a service in a process of its own, which is ended by SIGTERM."""
    words = ["serve", "--model", str(model), "--port", "0", "--workers", str(workers)]
    with subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = re.search(r":(\d+)/$", process.stdout.readline().strip())
        assert port is not None
        yield "127.0.0.1", int(port[1])
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def ask(address: tuple[str, int], sample: Sample) -> tuple[str, float]:
    """Return whether the answer to a photograph is right, lost or that of another one, and the seconds it took."""
    begun = time.perf_counter()
    connection = HTTPConnection(*address, timeout=60)
    try:
        connection.request("POST", "/inspect", sample.content)
        response = connection.getresponse()
        answer = json.loads(response.read())
    except OSError:
        return "lost", time.perf_counter() - begun
    finally:
        connection.close()
    if response.status != 200:
        return "lost", time.perf_counter() - begun
    return "right" if sample.is_meant_by(answer) else "mixed up", time.perf_counter() - begun


def kill_watch(model: Path, samples: list[Sample], kills: int, draw: random.Random) -> dict:
    """Return how many photographs arrived and how many lines they have, after so many kills and a last run."""
    with tempfile.TemporaryDirectory() as root:
        folder, results = Path(root) / "camera", Path(root) / "results.jsonl"
        folder.mkdir()
        arrived: dict[str, Sample] = {}
        done = threading.Event()
        writer = threading.Thread(target=arrive, args=(folder, samples, arrived, done, draw))
        writer.start()
        torn = inspecting = lines = 0
        for kill in range(kills):
            process = start_watch(model, folder, results)
            if kill % 2:  # the others may be killed before they watch
                assert process.stderr is not None
                while not process.stderr.readline().startswith("Watching"):
                    pass
            time.sleep(draw.uniform(0, 4))
            process.kill()
            process.communicate()
            content = results.read_bytes() if results.exists() else b""
            torn += not content.endswith(b"\n") and bool(content)
            inspecting += content.count(b"\n") > lines
            lines = content.count(b"\n")
            print(f"kill {kill + 1}: {len(arrived)} photographs, {lines} lines", flush=True)
        done.set()
        writer.join()
        process = start_watch(model, folder, results)
        end = time.monotonic() + 120
        while results.read_bytes().count(b"\n") < len(arrived) and time.monotonic() < end:
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        found = [json.loads(line) for line in results.read_text().splitlines()]
    per_photograph = Counter(line["path"] for line in found)
    return {
        "kills": kills,
        "photographs": len(arrived),
        "lines": len(found),
        "photographs with exactly one line": sum(per_photograph[name] == 1 for name in arrived),
        "lost": sum(per_photograph[name] == 0 for name in arrived),
        "repeated": sum(number > 1 for number in per_photograph.values()),
        "lines with an error": sum("error" in line for line in found),
        "lines of another photograph": sum(not arrived[line["path"]].is_meant_by(line) for line in found),
        "torn lines after kills": torn,
        "kills of one that had written lines": inspecting,
        "exit code of the last run": process.returncode,
    }


def start_watch(model: Path, folder: Path, results: Path) -> subprocess.Popen:
    """Start to watch a folder, with heat maps."""
    words = ["watch", folder, "--model", model, "--results", results, "--settle", SETTLE]
    words += ["--heat-maps", results.with_name("maps")]
    return subprocess.Popen([*COMMAND, *map(str, words)], stderr=subprocess.PIPE, text=True)


def arrive(
    folder: Path, samples: list[Sample], arrived: dict[str, Sample], done: threading.Event, draw: random.Random
) -> None:
    """Write photographs, each second one in two halves with a pause in between."""
    for number in itertools.count():
        if done.is_set():
            return
        name, sample = f"{number:05}.png", samples[number % len(samples)]
        with (folder / name).open("wb", buffering=0) as file:
            half = len(sample.content) // 2 if number % 2 else 0
            file.write(sample.content[:half])
            time.sleep(draw.uniform(0, SETTLE / 3) if half else 0)
            file.write(sample.content[half:])
        arrived[name] = sample
        time.sleep(draw.uniform(0.05, 0.4))


def simulate_drift(references: int, generator: np.random.Generator) -> dict:
    """Return how often windows of normal and of shifted parts raise an alarm, with the default window and rate.

    The false alarms are those of three independent quantities, the rate of an installation three times that of one.
    """
    limit = critical_distance(references, WINDOW, RATE / len(QUANTITIES))
    normal = np.sort(generator.normal(size=(WINDOWS, WINDOW)), axis=1)
    rates, power = [], dict.fromkeys(SHIFTS, 0.0)
    for _ in range(INSTALLATIONS):
        reference = np.sort(generator.normal(size=references))
        rates.append(len(QUANTITIES) * alarms(reference, normal, limit))
        for shift in SHIFTS:
            power[shift] += alarms(reference, normal[:100] + shift, limit) / INSTALLATIONS
    low, high = np.percentile(rates, [5, 95])
    return {
        "references": references,
        "window": WINDOW,
        "stated rate": RATE,
        "false alarms per window": round(float(np.mean(rates)), 5),
        "of 90 % of the installations": [round(float(low), 5), round(float(high), 5)],
        "found in the first window": {f"{shift} standard deviations": round(power[shift], 3) for shift in SHIFTS},
    }


def alarms(reference: np.ndarray, windows: np.ndarray, limit: float) -> float:
    """Return the share of windows, sorted rows, whose distance from a sorted reference reaches the limit."""
    steps = np.arange(windows.shape[1] + 1) / windows.shape[1]
    below, upto = (np.searchsorted(reference, windows, side=side) / len(reference) for side in ("left", "right"))
    distances = np.maximum(steps[1:] - upto, below - steps[:-1]).max(axis=1)
    return float((distances >= limit - 1e-12).mean())


if __name__ == "__main__":
    auto_cli(main)
