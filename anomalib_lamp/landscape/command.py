"""`anomalib-lamp landscape`: planes, sharpness and a page of trained checkpoints."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import anomalib.models
import numpy as np
import torch
from anomalib.data import AnomalibDataModule
from anomalib.data.datasets.base.image import AnomalibDataset
from anomalib.models import AnomalibModule
from torch import Tensor

from anomalib_lamp.callbacks.held_out import evenly_spread
from anomalib_lamp.compare.classes import import_class
from anomalib_lamp.compare.environment import describe_run
from anomalib_lamp.compare.records import write_durably
from anomalib_lamp.report.html import render_html
from anomalib_lamp.report.markdown import render_markdown

from . import plot
from .directions import random_directions, require_same_weights, trajectory_directions, weights_of
from .objectives import Objective, objective_of
from .page import Findings, drawings_of, make_page
from .sharpness import Sharpness, sharpness
from .surface import Surface, grid, surface

LEARNT, HELD_OUT = "learnt", "held out"
MARGIN = 0.2  # by which the plane of a training is wider than its way


def landscape(
    checkpoints: Sequence[Path],
    data: AnomalibDataModule,
    model: str = "LampAE",
    out: Path | None = None,
    trajectory: list[Path] | None = None,
    target: Literal["pixels", "features"] | None = None,
    images: int = 32,
    radius: float = 1.0,
    steps: int = 51,
    measure_sharpness: bool = True,
    seed: int = 0,
) -> Path:
    """Draw the loss around the weights of checkpoints, and measure how sharp it is.

    Args:
        checkpoints: Files of trained models of the same architecture, drawn on the same axes.
        data: Data set, as for `anomalib train`.
        model: Class of the models: LampAE, or one whose loss AmplifyLoss knows.
        out: Folder for the results; results/landscape if not given. A stopped run goes on there.
        trajectory: Checkpoints of the training of the first one, the earliest first: its way is drawn.
        target: For LampAE: which of its two trainings is measured; the first that it has if not given.
        images: How many training images and as many good test images are measured; all if there are fewer.
        radius: How far the plane reaches, in norms of the filters.
        steps: Points along each axis of the plane, an odd number.
        measure_sharpness: Whether to measure curvature and perturbations, too, which takes minutes.
        seed: Seed of the directions.

    Returns:
        Path of the page. Beside it: landscape.json, the planes, and the drawings as PNG and SVG.

    Raises:
        FileNotFoundError: If a checkpoint or the data is missing.
        OSError: If the folder cannot be written to.
        ValueError: If a checkpoint is of another model or architecture, or an argument is out of range.
    """
    axes = [grid(radius, steps)] * 2
    out = Path("results/landscape") if out is None else Path(out)
    labels = short_labels(checkpoints)
    models = {label: load(model, path) for label, path in zip(labels, checkpoints, strict=True)}
    first = next(iter(models.values()))
    shown = {LEARNT: images_of(data, first, images, test=False), HELD_OUT: images_of(data, first, images, test=True)}
    objectives = {
        name: {label: objective_of(loaded, batch, target) for label, loaded in models.items()}
        for name, batch in shown.items()
        if len(batch)
    }
    learnt = objectives[LEARNT]
    expected = weights_of(learnt[labels[0]].module)
    for label in labels[1:]:
        require_same_weights(expected, weights_of(learnt[label].module))
    planes = {
        label: surface(
            objective.closure,
            weights_of(objective.module),
            random_directions(objective.module, seed=seed),
            axes,
            out / f"plane-{number}.json",
            {"checkpoint": label, "images": len(shown[LEARNT]), "seed": seed},
            progress=True,
        )
        for number, (label, objective) in enumerate(learnt.items(), start=1)
    }
    way = None
    if trajectory:
        states = [objective_of(load(model, path), shown[LEARNT][:1], target) for path in trajectory]
        way = _trajectory(learnt[labels[0]], [weights_of(state.module) for state in states], steps, out)
    found = Findings(
        planes,
        _sharpness(objectives, seed) if measure_sharpness else {},
        way,
        facts=(
            ("model", model),
            ("learnt images", str(len(shown[LEARNT]))),
            ("held-out images", str(len(shown[HELD_OUT]))),
            ("points", f"{steps} x {steps}"),
        ),
        notes=() if len(shown[HELD_OUT]) else ("There are no good test images: nothing held out was measured.",),
    )
    return write(found, out, {"model": model, "checkpoints": dict(zip(labels, map(str, checkpoints), strict=True))})


def _sharpness(
    objectives: Mapping[str, Mapping[str, Objective]], seed: int
) -> dict[str, dict[str, dict[str, Sharpness]]]:
    return {
        name: {
            label: sharpness(o.closure, o.module, without_curvature=o.without_curvature, seed=seed)
            for label, o in of_models.items()
        }
        for name, of_models in objectives.items()
    }


def _trajectory(objective: Objective, states: list[dict[str, Tensor]], steps: int, out: Path) -> Any:
    """Return the plane of a training that ends at an objective's weights, and its way."""
    way = trajectory_directions([*states, weights_of(objective.module)])
    low, high = way.coordinates.min(axis=0), way.coordinates.max(axis=0)
    margins = MARGIN * (high - low).max()
    axes = [np.linspace(a - margins, b + margins, steps) for a, b in zip(low, high, strict=True)]
    centre = weights_of(objective.module)
    return surface(objective.closure, centre, way.directions, axes, out / "trajectory.json", progress=True), way


def write(found: Findings, out: Path, origin: Mapping[str, Any]) -> Path:
    """Write page, tables, figures and JSON to a folder, and return the path of the page."""
    drawings = drawings_of(found)
    for name, (drawing, _) in drawings.items():
        plot.save(drawing, out / name)
    page = make_page(found, drawings)
    content = {
        **describe_run(),
        **origin,
        "planes": {label: _summary(plane) for label, plane in found.planes.items()},
        "sharpness": {
            images: {
                label: {ruler: asdict(of) for ruler, of in of_rulers.items()} for label, of_rulers in models.items()
            }
            for images, models in found.sharpness.items()
        },
    }
    if found.trajectory is not None:
        _, way = found.trajectory
        content["trajectory"] = {"coordinates": way.coordinates.tolist(), "explained": way.explained.tolist()}
    write_durably(out / "landscape.json", json.dumps(content, indent=2) + "\n")
    write_durably(out / "landscape.md", render_markdown(page))
    write_durably(out / "landscape.html", render_html(page))
    return out / "landscape.html"


def _summary(plane: Surface) -> dict[str, Any]:
    rulers = list(plane.values)
    explained = {f"{ruler} by {rulers[0]}": plane.explained(ruler, rulers[0]) for ruler in rulers[1:]}
    return {"at the weights": plane.centre, "gaps": plane.gaps, "explained": explained}


def load(name: str, checkpoint: Path) -> AnomalibModule:
    """Return a model from its checkpoint, in evaluation mode.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there is no such class, or the file is not a checkpoint of it.
    """
    cls = import_class(name) if "." in name else getattr(anomalib.models, name, None)
    if not (isinstance(cls, type) and issubclass(cls, AnomalibModule)):
        msg = f"Expected the name of a model such as LampAE or Stfpm, or a dotted path, got {name!r}."
        raise ValueError(msg)
    if not Path(checkpoint).is_file():
        msg = f"Expected a checkpoint, got {checkpoint}, which is no file. `anomalib train` leaves model.ckpt."
        raise FileNotFoundError(msg)
    try:
        return cls.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    except Exception as error:  # whatever reading a file that is none, or of another class, leads to
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        msg = f"Expected a checkpoint of {name}, got {checkpoint} ({reason}). Give its class as --model."
        raise ValueError(msg) from error


def images_of(data: AnomalibDataModule, model: AnomalibModule, count: int, *, test: bool) -> Tensor:
    """Return good images as the model gets them, evenly spread over the training or test images, (N, 3, H, W)."""
    if count < 1:
        msg = f"Expected 1 or more images, got {count}."
        raise ValueError(msg)
    if not hasattr(data, "train_data"):
        data.prepare_data()
        data.setup()
    dataset: AnomalibDataset = data.test_data if test else data.train_data
    good = [number for number, label in enumerate(dataset.samples.label_index) if label == 0]
    chosen = [good[place] for place in evenly_spread(len(good), min(count, len(good)))]
    transform: Any = getattr(model.pre_processor, "transform", None) or torch.nn.Identity()
    images = [transform(torch.as_tensor(dataset[number].image)[None]) for number in chosen]
    return torch.cat(images) if images else torch.empty(0)


def short_labels(paths: Sequence[Path]) -> list[str]:
    """Return short names of files that tell them apart: what is left without their common beginning and end.

    Example:
        >>> short_labels([Path("results/base/v0/model.ckpt"), Path("results/lamp/v0/model.ckpt")])
        ['base', 'lamp']
        >>> short_labels([Path("results/base/model.ckpt")])
        ['model']
    """
    parts = [Path(path).with_suffix("").parts for path in paths]
    if len(set(parts)) < len(parts):
        msg = f"Expected different checkpoints, got one of them twice: {', '.join(map(str, paths))}."
        raise ValueError(msg)
    if len(parts) == 1:
        return [parts[0][-1]]
    while len({part[0] for part in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [part[1:] for part in parts]
    while len({part[-1] for part in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [part[:-1] for part in parts]
    return ["/".join(part) for part in parts]
