"""What several test files use: drawn parts, small models, models that behave badly, records as a sweep leaves them."""

import hashlib
import multiprocessing
import os
import resource
import signal
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.stats import norm

from anomalib_lamp import FineTunedGaussian, LampAE, SyntheticParts
from anomalib_lamp.callbacks import BestAverage
from anomalib_lamp.compare.records import Cost, ImageScore, Latency, Metrics, Origin, Record, ResultFolder

REPOSITORY = Path(__file__).parents[1]
SMALL_PARTS = {"size": 64, "num_train": 8, "num_test_good": 4, "num_test_per_defect": 1}
SHARED_DATA = Path(os.environ.get("ANOMALIB_LAMP_DATA", REPOSITORY.parent / "shared" / "data"))
MNIST_DIGITS = np.arange(40) % 10
START = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
KINDS = ("broken_large", "broken_small", "contamination")
EVIL = "<script>alert('$x^2$')</script> | *b*"
REPORT_SECTIONS = (
    "How it was measured",
    "At a glance",
    "Quality",
    "Failed jobs",
    "Against the baseline",
    "Ranking",
    "Cost",
    "ROC curves",
    "By kind of defect",
    "Best and worst cases",
)


def make_parts(root, **arguments):
    """Return a tiny SyntheticParts datamodule."""
    return SyntheticParts(root=root, **{**SMALL_PARTS, "train_batch_size": 4, **arguments})


def write_mnist(root):
    """Write forty training and forty test images in MNIST's format, image i showing digit i % 10; return the folder."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for split in ("train", "t10k"):
        images = generator.integers(0, 256, (len(MNIST_DIGITS), 28, 28), dtype=np.uint8)
        images[:, 0, 0] = MNIST_DIGITS
        write_idx(raw / f"{split}-images-idx3-ubyte", images)
        write_idx(raw / f"{split}-labels-idx1-ubyte", MNIST_DIGITS.astype(np.uint8))
    return root


def write_idx(path, array):
    """Write an array of bytes in MNIST's file format."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.tobytes())


def make_lamp_ae(**arguments):
    """Return a tiny LampAE."""
    small = {"width": 4, "depth": 3, "image_size": 64, "max_steps": 4, "seed": 0, "visualizer": False}
    small["targets"] = "pixels"
    return LampAE(**{**small, **arguments})


def make_fine_tuned_gaussian(**arguments):
    """Return a tiny FineTunedGaussian with random weights."""
    network = {"backbone": "resnet18", "layers": ["act1", "layer1"], "weights": "random", "image_size": 64}
    steps = {"max_steps": 4, "check_every": 1, "patience": 100}
    return FineTunedGaussian(**{**network, **steps, "seed": 0, "visualizer": False, **arguments})


def best_average(trainer):
    """Return the callback of a trainer that follows the weights."""
    return next(callback for callback in trainer.callbacks if isinstance(callback, BestAverage))


class Misbehaves(LampAE):
    """Does something bad when its training starts. Workers of the runner import it by name.

    Args:
        how: A signal that it sends to its own process, or the name of one of its methods.
        argument: Of the method.
        marker: File that says that it has done so before; with it, it does so once.
    """

    def __init__(self, how: str, argument: str = "", marker: str | None = None) -> None:
        super().__init__(max_steps=1, width=4, image_size=64, visualizer=False)
        self.how, self.argument, self.marker = how, argument, marker

    def on_train_start(self) -> None:
        if self.marker is not None:
            if Path(self.marker).exists():
                return
            Path(self.marker).touch()
        if self.how.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, self.how))
        else:
            getattr(self, self.how)(self.argument)

    def exits(self, status: str) -> None:
        print("about to exit", flush=True)
        os._exit(int(status))

    def hangs(self, _: str) -> None:
        print("about to hang", flush=True)
        time.sleep(1000)

    def shouts(self, length: str) -> None:
        raise ValueError("x" * int(length))

    def wanders(self, folder: str) -> None:
        os.chdir(folder)
        print("gone to", folder)

    def fills_the_disk(self, _: str) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    def dies_while_saving(self, _: str) -> None:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)


class NotesStartMethod(LampAE):
    """Writes down how its data loaders would start their workers.

    Args:
        note: File to write to.
    """

    def __init__(self, note: str) -> None:
        super().__init__(max_steps=1, width=4, image_size=64, visualizer=False)
        Path(note).write_text(multiprocessing.get_start_method())


def make_record(data="bottle", model="PaDiM", seed=0, quality=0.9, **changes):
    """Return a finished record; ``quality`` is about its image AUROC. ``changes`` are fields of the record."""
    job = hashlib.sha256(f"{data}/{model}/{seed}".encode()).hexdigest()[:12]
    fields = {
        "job": job,
        "data": data,
        "model": model,
        "seed": seed,
        "weights": "random",
        "config": {"model": {"class_path": model}, "seed": seed},
        "status": "finished",
        "metrics": make_metrics(quality),
        "images": make_images(quality, seed),
        "cost": make_cost(),
        "origin": make_origin(),
    }
    return Record(**{**fields, **changes})


def make_failed(data="bottle", model="PaDiM", seed=0, error="RuntimeError: out of memory", **changes):
    """Return the record of a job that failed."""
    empty = {"status": "failed", "error": error, "metrics": None, "images": [], "cost": None}
    return make_record(data, model, seed, **{**empty, **changes})


def make_metrics(quality, **changes):
    values = {"image_AUROC": quality, "pixel_AUROC": quality * 0.98, "AUPRO": quality * 0.9, "image_F1": quality * 0.95}
    return Metrics(**{**values, "pixel_F1": quality * 0.5, **changes})


def make_images(quality=0.9, seed=0, good=30, per_kind=25):
    """Return scores whose AUROC is about ``quality``: two normal distributions, squashed into [0, 1]."""
    rng = np.random.default_rng(seed)
    shift = np.sqrt(2) * norm.ppf(min(max(quality, 0.01), 0.99))
    kinds = ["good"] * good + [kind for kind in KINDS for _ in range(per_kind)]
    scores = 1 / (1 + np.exp(-rng.normal(size=len(kinds)) - shift * np.array([kind != "good" for kind in kinds])))
    return [
        ImageScore(path=f"test/{kind}/{index:03}.png", kind=kind, anomalous=kind != "good", score=score)
        for index, (kind, score) in enumerate(zip(kinds, scores.tolist(), strict=True))
    ]


def make_cost(latency_ms=20.0, **changes):
    latency = [
        Latency(batch_size=batch, image_size=256, median_ms=latency_ms * factor, iqr_ms=latency_ms / 20, runs=50)
        for batch, factor in ((1, 1.0), (32, 18.0))
    ]
    values = {"train_seconds": 93.4, "test_seconds": 12.0, "total_seconds": 120.0, "epochs": 20, "steps": 300}
    sizes = {"peak_rss_mib": 1500.0, "parameters": 2_800_000, "exported_mib": 11.2, "latency": latency}
    return Cost(**{**values, **sizes, **changes})


def make_origin(**changes):
    versions = {"anomalib": "2.7.0", "anomalib-lamp": "0.1.0", "torch": "2.9.0"}
    machine = {"machine": "Intel Xeon, 2 cores", "device": "cpu", "threads": 2, "python": "3.11.2"}
    times = {"started": START, "ended": START + timedelta(minutes=2)}
    return Origin(**{**times, **machine, "versions": versions, "commit": "0123456789ab", **changes})


def make_sweep(data_sets=2, models=3, seeds=2):
    """Return the records of a full grid; a higher number of the model means a better one, with noise."""
    rng = np.random.default_rng(0)
    records = []
    for d in range(data_sets):
        for m in range(models):
            for seed in range(seeds):
                quality = float(np.clip(0.6 + 0.3 * (m + 1) / models + 0.03 * rng.normal(), 0, 1))
                cost = make_cost(5.0 * (m + 1) + float(rng.random()), peak_rss_mib=900.0 + 90 * m)
                records.append(make_record(f"data{d:02}", f"Model{m:02}", seed, quality, cost=cost))
    return records


def write_folder(root, records, pictures=0):
    """Write a sweep's folder, with some small pictures of each sort for every finished job."""
    folder = ResultFolder(root)
    for record in records:
        folder.write(record)
        if pictures and record.status == "finished":
            target = folder.work_path(record.job) / "pictures"
            target.mkdir(parents=True, exist_ok=True)
            for sort, colour in (("hit", "seagreen"), ("miss", "firebrick"), ("false_alarm", "darkorange")):
                for index in range(pictures):
                    Image.new("RGB", (192, 64), colour).save(target / f"{sort}_{index}.jpg")
    return folder


def mixed_records():
    """Return a sweep in which everything occurs: failures, missing values, hostile names, two machines."""
    traceback = f"Traceback (most recent call last):\n  File 'x.py'\nRuntimeError: <b>{EVIL}</b>"
    return [
        *make_sweep(data_sets=5, models=3, seeds=2),
        make_record("data00", EVIL, 0, metrics=make_metrics(0.7, pixel_AUROC=None)),
        make_record("data00", "Model00", 2, origin=make_origin(device="cuda:0", commit=None)),
        make_failed("data01", EVIL, 0, error=traceback, attempt=3),
    ]
