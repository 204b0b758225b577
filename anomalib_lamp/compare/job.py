"""One job: a model trained and tested on a data set with a seed, and measured."""

import hashlib
import json
import math
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataModule
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_lamp.callbacks import AmplifyLoss, CheckImages
from anomalib_lamp.callbacks.check_images import files_to_draw_on, require_readable
from anomalib_lamp.data.image_files import look_at

from .classes import instantiate
from .environment import describe_origin
from .measure import (
    TestPredictions,
    exported_mib,
    measure_latency,
    measure_quality,
    peak_gpu_mib,
    peak_rss_mib,
)
from .pictures import save_pictures
from .records import Cost, ImageScore, Multipliers, Record

BUDGET_ARGUMENTS = ("max_epochs", "max_steps", "max_time")


@dataclass(frozen=True)
class Job:
    """One training and test: a model on a data set with a seed.

    Attributes:
        data: Name of the data set, with its grid values.
        model: Name of the model, with its grid values.
        grid: The model's grid values alone.
        seed: Seed of everything.
        weights: What the model starts from: ``imagenet``, ``local`` or ``random``.
        config: Everything that decides the result: classes, all init arguments, trainer arguments, measurements.
        line: Line of the spec where the data set stands.
        timeout: Seconds after which the job is stopped; ``None`` for no limit.
        base: Folder that a relative root of the data set starts from.
    """

    data: str
    model: str
    grid: dict[str, Any]
    seed: int
    weights: str
    config: dict[str, Any] = field(repr=False)
    line: int = 1
    timeout: float | None = None
    base: Path = field(default_factory=Path.cwd, repr=False)

    @cached_property
    def id(self) -> str:
        """Return the identity of the job: the same resolved configuration is the same job."""
        return hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def data_config(self) -> dict[str, Any]:
        """Return the data set's class and init arguments, its root as an absolute path.

        ``config`` keeps the root as it was written, so that the job is the same one on another machine.
        """
        config = self.config["data"]
        if "root" not in config["init_args"]:
            return config
        root = self.base / Path(config["init_args"]["root"] or "").expanduser()
        return config | {"init_args": config["init_args"] | {"root": str(root)}}

    def __str__(self) -> str:
        """Return what people call the job."""
        return f"{self.model} on {self.data}, seed {self.seed}"


def run_job(job: Job, work: Path) -> Record:
    """Train and test a model on a data set, and return the record.

    The model in its last state is tested, with the thresholds of that state; nothing is chosen on the test set.
    Weights, shuffling and drawn validation anomalies come from the job's seed.

    Args:
        job: What to run.
        work: Folder for checkpoints and pictures.

    Raises:
        ValueError: If neither the spec nor the model says how long to train.
    """
    started = datetime.now(timezone.utc)
    begun = time.perf_counter()
    datamodule, model = prepare(job)
    predictions, validations = TestPredictions(), Validations()
    trainer_arguments = {"logger": False, "enable_progress_bar": False, "devices": 1, **job.config["trainer"]}
    callbacks = [predictions, validations, CheckImages()]
    amplification = AmplifyLoss() if job.config.get("amplify") else None
    if amplification is not None:
        callbacks.append(amplification)
    engine = Engine(callbacks=callbacks, default_root_dir=work, **trainer_arguments)
    _require_budget(job, model)
    train_seconds = _timed(engine.fit, model, datamodule=datamodule)
    epochs, steps = engine.trainer.current_epoch, engine.trainer.global_step
    if validations.last_step != steps:  # a limit of steps ended the training in the middle of an epoch
        engine.validate(model, datamodule=datamodule, verbose=False)
    test_seconds = _timed(engine.test, model, datamodule=datamodule, verbose=False)
    rss, gpu = peak_rss_mib(), peak_gpu_mib()
    thresholds = _thresholds(model)
    metrics = measure_quality(predictions, *thresholds)
    save_pictures(predictions, work / "pictures")
    measure = job.config["measure"]
    device = str(engine.trainer.strategy.root_device)
    model.to(device)
    latency = measure_latency(model, measure["latency_batch_sizes"], measure["latency_image_size"])
    return Record(
        **identity(job),
        status="finished",
        metrics=metrics,
        images=_image_scores(predictions, datamodule),
        cost=Cost(
            train_seconds=train_seconds,
            test_seconds=test_seconds,
            epochs=epochs,
            steps=steps,
            peak_rss_mib=rss,
            peak_gpu_mib=gpu,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            exported_mib=exported_mib(model) if measure["export"] else None,
            latency=latency,
            total_seconds=time.perf_counter() - begun,
        ),
        multipliers=_multipliers(amplification),
        origin=describe_origin(started, device),
    )


def identity(job: Job) -> dict[str, Any]:
    """Return the fields of a record that are known before the job runs."""
    return {
        "job": job.id,
        "data": job.data,
        "model": job.model,
        "grid": job.grid,
        "seed": job.seed,
        "weights": job.weights,
        "config": job.config,
    }


class Validations(Callback):
    """Remembers after which step the last validation took place."""

    last_step: int | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take note."""
        del pl_module
        self.last_step = trainer.global_step


def prepare(job: Job) -> tuple[AnomalibDataModule, AnomalibModule]:
    """Return the datamodule and the model, each made from the job's seed, whatever the other draws."""
    seed_everything(job.seed, workers=True, verbose=False)
    datamodule = instantiate(job.data_config)
    datamodule.prepare_data()
    try:
        datamodule.setup(TrainerFn.FITTING)  # as the trainer calls it; otherwise it would draw again
    except (OSError, SyntaxError):  # Pillow's, without the file's name
        require_readable(map(look_at, files_to_draw_on(datamodule)))
        raise
    seed_everything(job.seed, workers=True, verbose=False)
    return datamodule, instantiate(job.config["model"])


def _require_budget(job: Job, model: AnomalibModule) -> None:
    """Raise ValueError where no training length is given; Lightning would train for 1000 epochs."""
    given = job.config["trainer"].keys() | model.trainer_arguments.keys()
    if given.isdisjoint(BUDGET_ARGUMENTS) and not hasattr(model, "max_steps"):
        msg = f"Expected a training budget for {job.model}; add `trainer: {{max_epochs: ...}}` to it in the spec."
        raise ValueError(msg)


def _timed(function: Any, *args: Any, **kwargs: Any) -> float:
    """Call a function and return how many seconds it took."""
    begun = time.perf_counter()
    function(*args, **kwargs)
    return time.perf_counter() - begun


def _multipliers(amplification: AmplifyLoss | None) -> Multipliers | None:
    """Return what LAMP multiplied gradients by, if it was asked for and began."""
    if amplification is None or amplification.multipliers is None:
        return None
    median, p99 = amplification.multipliers
    return Multipliers(median=median, p99=p99)


def _thresholds(model: AnomalibModule) -> tuple[float, float]:
    """Return the thresholds of image scores and maps before normalisation; NaN where there is none."""
    names = ("image_threshold", "pixel_threshold")
    return tuple(float(getattr(model.post_processor, name, math.nan)) for name in names)  # type: ignore[return-value]


def _image_scores(predictions: TestPredictions, datamodule: AnomalibDataModule) -> list[ImageScore]:
    """Return the score of every test image, with paths that mean the same on another machine."""
    root = Path(getattr(datamodule, "root", "."))
    rows = zip(predictions.paths, predictions.labels.tolist(), predictions.scores.tolist(), strict=True)
    return [
        ImageScore(path=_relative(Path(path), root), kind=Path(path).parent.name, anomalous=anomalous, score=score)
        for path, anomalous, score in rows
    ]


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
