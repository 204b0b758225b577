"""Measures the runtime: size, start, latency of every format, agreement with the Engine, memory of many predictions.

python benchmarks/runtime.py CHECKPOINT PHOTOGRAPHS benchmarks/results/runtime.json
(about half an hour on two cores for a LampAE of full size)
"""

import json
import os
import resource
import subprocess
import tempfile
import time
import venv
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from anomalib.data import PredictDataset
from anomalib.data.utils import read_image
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from anomalib_lamp_runtime import Inspection, Inspector
from anomalib_lamp_runtime.commands.bench import measure
from anomalib_lamp_runtime.photographs import photographs_in
from jsonargparse import auto_cli
from odd_photographs import draw_odd_photographs

from anomalib_lamp.compare.environment import describe_run
from anomalib_lamp.export import export
from anomalib_lamp.export.loading import load_model

REPOSITORY = Path(__file__).parents[1]
THREADS = 2
STARTS = 5
TOLERANCE = 1e-4
PARTS = ("environment", "start to first score", "latency", "agreement on 50 odd photographs", "memory")
PYTORCH = "PyTorch"
MEMORY = """
import itertools, os, sys
from pathlib import Path
from anomalib_lamp_runtime import Inspector
from anomalib_lamp_runtime.photographs import photographs_in
model, count, *folders = sys.argv[1:]
files = [file for folder in folders for file in photographs_in(Path(folder))]
inspector = Inspector(model, threads=2)
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
for file in files * 2:
    inspector(file)
print(resident())
for file in itertools.islice(itertools.cycle(files), int(count)):
    inspector(file)
print(resident())
"""


def main(
    ckpt: Path,
    photographs: Path,
    out: Path,
    model: str = "LampAE",
    predictions: int = 10_000,
    parts: list[str] = list(PARTS),  # noqa: B006  jsonargparse shows it
) -> None:
    """Measure and write a JSON file.

    Args:
        ckpt: Checkpoint.
        photographs: Folder of photographs of normal parts.
        out: Result file; what it holds of parts that are not measured stays.
        model: Class of the checkpoint.
        predictions: Number of predictions between the two looks at the resident memory.
        parts: What to measure.
    """
    torch.set_num_threads(THREADS)
    result = json.loads(out.read_text()) if out.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        exported = export(ckpt, folder / "exported", photographs, model, openvino=True)
        odd = draw_odd_photographs(folder / "odd")
        loaded = load_model(ckpt, model)
        environment = folder / "environment"
        installed = install(environment)
        measurements = {
            "environment": lambda: installed,
            "start to first score": lambda: cold_start(environment, exported, photographs),
            "latency": lambda: latency(loaded, exported, photographs_in(photographs)),
            "agreement on 50 odd photographs": lambda: agreement(loaded, exported, odd),
            "memory": lambda: memory(environment, exported, [photographs, folder / "odd"], predictions),
        }
        for name in parts:
            run = describe_run() | {"model": model, "load of the machine": round(os.getloadavg()[0], 1)}
            result[name] = {**run, **measurements[name]()}
            out.write_text(json.dumps(result, indent=2) + "\n")
    print(out.read_text())


def install(environment: Path) -> dict:
    """Install the runtime in a new environment, and return what is in it without pip and setuptools, in MB."""
    venv.create(environment, with_pip=True)
    pip = [environment / "bin" / "python", "-m", "pip"]
    packages = next(environment.glob("lib/python*/site-packages"))
    before = size(packages)
    subprocess.run([*pip, "install", "--quiet", REPOSITORY / "runtime"], check=True)
    listed = subprocess.run([*pip, "list", "--format", "json"], check=True, capture_output=True, text=True).stdout
    versions = {package["name"]: package["version"] for package in json.loads(listed)}
    assert not {"torch", "anomalib"} & set(versions)
    return {"installed MB": round(size(packages) - before, 1), "pip list": versions}


def size(folder: Path) -> float:
    """Return the size of the files in a folder in MB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def cold_start(environment: Path, exported: Path, photographs: Path) -> dict:
    """Return how long the command takes for one photograph, the start of Python included; first without byte code."""
    photograph = photographs_in(photographs)[0]
    command = [environment / "bin" / "anomalib-lamp-runtime", "predict", photograph, "--model", exported]
    seconds, cpu_seconds = [], []
    for _ in range(STARTS):
        start, used = time.perf_counter(), children_seconds()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": ""})
        seconds.append(round(time.perf_counter() - start, 2))
        cpu_seconds.append(round(children_seconds() - used, 2))
    return {"seconds": seconds, "CPU seconds": cpu_seconds}


def children_seconds() -> float:
    """Return the CPU time of the processes that this one has started and waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def latency(model: AnomalibModule, exported: Path, photographs: list[Path], count: int = 100) -> dict:
    """Return times from file to result for PyTorch and every format, and how much faster than PyTorch they are."""

    def predict(photograph: Path) -> Inspection:
        with torch.inference_mode():
            outputs = model(read_image(photograph, as_tensor=True)[None])
        anomaly_map = outputs.anomaly_map[0, 0].numpy()
        return Inspection(outputs.pred_score.item(), 0, 0.5, False, anomaly_map, (), 0, 0)

    formats = ("onnx", "openvino")
    inspectors = {name: Inspector(exported, backend=name, threads=THREADS) for name in formats}
    files = {name: list(inspectors[name].export.files[name]) for name in formats}
    megabytes = {name: sum((exported / file).stat().st_size for file in files[name]) / 1e6 for name in formats}
    parameters = sum(value.nbytes for value in (*model.parameters(), *model.buffers())) / 1e6
    repeated = (photographs * count)[:count]
    rows = measure({PYTORCH: predict, **inspectors}, {PYTORCH: parameters, **megabytes}, repeated)
    pytorch = rows[0].p50
    return {
        "threads": THREADS,
        "photographs": count,
        "rows": [asdict(row) for row in rows],
        "times as fast as PyTorch": {row.backend: round(pytorch / row.p50, 2) for row in rows},
        "p99 / p50": {row.backend: round(row.p99 / row.p50, 2) for row in rows},
    }


def agreement(model: AnomalibModule, exported: Path, photographs: list[Path]) -> dict:
    """Return the largest differences of the formats from the Engine."""
    dataset = PredictDataset(photographs[0].parent)
    dataset.image_filenames = photographs
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(accelerator="cpu", devices=1, default_root_dir=folder, logger=False)
        batches = engine.predict(model, dataset=dataset)
    result = {}
    for backend in ("onnx", "openvino"):
        inspections = list(map(Inspector(exported, backend=backend), photographs))
        pairs = list(zip(inspections, batches, strict=True))
        scores = [abs(one.score - batch.pred_score.item()) for one, batch in pairs]
        maps = [np.abs(one.anomaly_map - batch.anomaly_map.squeeze().numpy()).max() for one, batch in pairs]
        result[backend] = {
            "score": float(max(scores)),
            "map": float(max(maps)),
            "labels equal": all(one.anomalous == batch.pred_label.item() for one, batch in pairs),
            "within 1e-4": bool(max(*scores, *maps) <= TOLERANCE),
        }
    return result


def memory(environment: Path, exported: Path, folders: list[Path], predictions: int) -> dict:
    """Return the resident memory before and after many predictions, after a warm-up, in MB."""
    command = [environment / "bin" / "python", "-c", MEMORY, exported, str(predictions), *folders]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    before, after = map(float, done.stdout.split())
    return {
        "predictions": predictions,
        "resident MB before": round(before, 1),
        "resident MB after": round(after, 1),
        "growth in percent": round(100 * (after - before) / before, 2),
    }


if __name__ == "__main__":
    auto_cli(main)
