"""The spec of a sweep: data sets x models x grids x seeds in YAML, checked as a whole before anything runs."""

import difflib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import yaml
from anomalib import data as anomalib_data
from anomalib import models as anomalib_models
from anomalib.data import AnomalibDataModule
from anomalib.models import AnomalibModule
from jsonargparse import ArgumentError
from lightning import Trainer
from pydantic import BaseModel, PositiveInt, ValidationError

from .classes import import_class, is_proper_subclass, parser_of
from .job import Job
from .yaml_lines import read_yaml

SPEC_KEYS = ("data", "models", "seeds", "trainer", "measure")
WEIGHT_SOURCES = ("imagenet", "local", "random")
RESERVED_TRAINER_ARGUMENTS = (
    "callbacks",
    "default_root_dir",
    "enable_progress_bar",
    "logger",
    "num_nodes",
    "strategy",
)
COMPONENTS_OFF_BY_DEFAULT = ("evaluator", "visualizer")  # metrics and pictures: anomalib's would come on top
DEFAULT_VALIDATION_SPLIT = {"val_split_mode": "synthetic", "val_split_ratio": 0.1}
GRAMMAR = """\
Train and test every model of a spec on every data set with every seed, one
job each, and save each result at once. The same command continues a sweep
that was stopped or killed, and tries failed jobs again. A spec is YAML:

  data:
    parts: {class_path: SyntheticParts, grid: {category: [washer, fabric]}}
  models:
    lamp_ae:
      class_path: LampAE
      init_args: {max_steps: 300}
      grid: {amplify: [true, false]}
    padim: {class_path: Padim, init_args: {pre_trained: false}}
    stfpm:
      class_path: Stfpm
      trainer: {max_epochs: 20}
      weights: imagenet
  seeds: [0, 1, 2]
  trainer: {accelerator: auto}
  measure: {latency_batch_sizes: [1, 32], latency_image_size: 256}

data, models  Names to entries. class_path: a class of anomalib or a plugin,
              by name or dotted path. init_args: its arguments. grid: lists
              of values of arguments; all combinations become jobs.
seeds         Default [0]. Goes to data set and model where they take one.
trainer       Arguments of Lightning's Trainer, for all models or, inside a
              model, for that one. A job runs on one device.
weights       Inside a model, for the tables: imagenet, local or random. By
              default what its weights or pre_trained says.
measure       latency_batch_sizes, latency_image_size, export (true, false).

Thresholds come from a tenth of the training images, half of them with drawn
anomalies, unless a data set says otherwise; never from the test set. All
problems of a spec are reported at once, with their lines, and nothing runs.
"""


class Measure(BaseModel, strict=True):
    """What is measured beside the metrics."""

    latency_batch_sizes: list[PositiveInt] = [1, 32]
    latency_image_size: PositiveInt = 256
    export: bool = True


class SpecError(ValueError):
    """Everything that is wrong with a spec, one problem a line, each with the line of the spec where it stands."""

    def __init__(self, path: Path, problems: Sequence["Problem"]) -> None:
        self.problems = sorted(problems, key=lambda problem: problem.line)
        lines = [f"{path}:{problem.line}: {problem.text}" for problem in self.problems]
        super().__init__("\n".join([f"{len(lines)} problem(s); nothing was run.", *lines]))


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and the line of the spec where it stands."""

    line: int
    text: str


@dataclass(frozen=True)
class _Variant:
    """A data set or model with one choice of its grid."""

    name: str
    grid: dict[str, Any]
    config: dict[str, Any]
    takes_seed: bool
    line: int
    trainer: dict[str, Any] = field(default_factory=dict)
    weights: str = "random"


def read_spec(path: Path | str) -> list[Job]:
    """Return the jobs of a spec, ordered by seed, then data set, then model.

    The grammar is that of :data:`GRAMMAR`. Every job's seed becomes the ``seed`` argument of its datamodule and model
    where they take one.

    Args:
        path: The YAML file.

    Raises:
        SpecError: If anything in it is unknown, mistyped or missing; it names all problems with their lines.
        FileNotFoundError: If there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"Expected a YAML file that says what to compare, got {path}, which does not exist."
        raise FileNotFoundError(msg)
    return _Reader(path).jobs()


class _Reader:
    """Reads one spec and gathers everything that is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.lines: dict[tuple, int] = {}

    def jobs(self) -> list[Job]:
        """Return the jobs, or raise with all problems."""
        spec = self._load()
        self._known_keys(spec, SPEC_KEYS, ())
        seeds = self._seeds(spec)
        measure = self._measure(spec.get("measure", {}))
        trainer = self._trainer(spec.get("trainer", {}), ("trainer",))
        data = self._entries(spec, "data")
        models = self._entries(spec, "models")
        if self.problems:
            raise SpecError(self.path, self.problems)
        jobs = [
            _job(data_variant, model_variant, seed, trainer, measure)
            for seed, data_variant, model_variant in itertools.product(seeds, data, models)
        ]
        return list({job.id: job for job in jobs}.values())

    def _load(self) -> dict[str, Any]:
        try:
            spec, self.lines = read_yaml(self.path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            raise SpecError(self.path, [Problem(line, f"not YAML: {getattr(error, 'problem', error)}")]) from None
        if not isinstance(spec, dict):
            raise SpecError(self.path, [Problem(1, f"expected the keys {', '.join(SPEC_KEYS)}, got {spec!r}")])
        return spec

    def _problem(self, place: tuple, text: str) -> None:
        """Note a problem at a place, a path of keys; an absent key is noted at its parent."""
        while place and place not in self.lines:
            place = place[:-1]
        problem = Problem(self.lines.get(place, 1), text)
        if problem not in self.problems:
            self.problems.append(problem)

    def _known_keys(self, given: Any, known: Sequence[str] | Mapping[str, Any], place: tuple) -> dict[str, Any]:
        """Return the known keys of a mapping, after noting the others."""
        if not isinstance(given, dict):
            self._problem(place, f"expected a mapping with some of the keys {', '.join(known)}, got {given!r}")
            return {}
        for key in given:
            if key not in known:
                self._problem((*place, key), f"unknown key {key!r}{_nearest(key, known)}")
        return {key: value for key, value in given.items() if key in known}

    def _seeds(self, spec: dict[str, Any]) -> list[int]:
        seeds = spec.get("seeds", [0])
        if not (isinstance(seeds, list) and seeds and all(type(seed) is int and seed >= 0 for seed in seeds)):
            self._problem(("seeds",), f"expected a list of integers from 0 up, got {seeds!r}")
            return []
        return seeds

    def _measure(self, given: Any) -> dict[str, Any]:
        """Return what is measured, with the defaults of what was not given."""
        given = self._known_keys(given, list(Measure.model_fields), ("measure",))
        try:
            return Measure(**given).model_dump()
        except ValidationError as error:
            for fault in error.errors():
                key, got = fault["loc"][0], given[fault["loc"][0]]
                self._problem(("measure", key), f"{key}: {fault['msg']}, got {got!r}")
        return {}

    def _trainer(self, given: Any, place: tuple) -> dict[str, Any]:
        """Return checked arguments of Lightning's Trainer."""
        arguments = self._known_keys(given, signature(Trainer).parameters, place)
        for key in RESERVED_TRAINER_ARGUMENTS:
            if key in arguments:
                self._problem((*place, key), f"{key!r} is set by compare itself; a job runs on one device")
        try:
            parser_of(Trainer).parse_object({"init_args": arguments})
        except ArgumentError as error:
            key, text = _argument_and_message(error)
            self._problem((*place, key), text)
        return arguments

    def _entries(self, spec: dict[str, Any], section: str) -> list[_Variant]:
        """Return all variants of all entries of ``data`` or ``models``."""
        entries = spec.get(section)
        if not isinstance(entries, dict) or not entries:
            self._problem((section,), f"expected a mapping of names to entries under {section!r}, got {entries!r}")
            return []
        return [variant for name, entry in entries.items() for variant in self._entry(section, str(name), entry)]

    def _entry(self, section: str, name: str, entry: Any) -> Iterator[_Variant]:
        """Yield the variants of one entry; nothing if something is wrong with it."""
        place = (section, name)
        known = ["class_path", "init_args", "grid", *(["trainer", "weights"] if section == "models" else [])]
        entry = self._known_keys({"class_path": entry} if isinstance(entry, str) else entry, known, place)
        trainer = self._trainer(entry.get("trainer", {}), (*place, "trainer"))
        if entry.get("weights", "random") not in WEIGHT_SOURCES:
            self._problem((*place, "weights"), f"expected one of {', '.join(WEIGHT_SOURCES)}, got {entry['weights']!r}")
        cls = self._class(section, entry.get("class_path"), (*place, "class_path"))
        if cls is None:
            return
        parameters = signature(cls).parameters
        init_args = self._known_keys(entry.get("init_args", {}), parameters, (*place, "init_args"))
        if section == "models":
            init_args = {name: False for name in COMPONENTS_OFF_BY_DEFAULT if name in parameters} | init_args
        for choice in self._choices(entry.get("grid", {}), parameters, (*place, "grid")):
            given = init_args | choice
            if section == "data" and "val_split_mode" in parameters:
                stands = "grid" if "val_split_mode" in choice else "init_args"
                given = self._held_out(given, (*place, stands, "val_split_mode"))
            resolved = self._resolve(cls, given, choice, place)
            yield _Variant(
                name=" ".join([name, *(f"{key}={_as_yaml(value)}" for key, value in choice.items())]),
                grid=choice,
                config={"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": resolved},
                takes_seed="seed" in parameters and given.get("seed") is None,
                line=self.lines.get(place, 1),
                trainer=trainer,
                weights=entry.get("weights") or _weights(resolved),
            )

    def _class(self, section: str, class_path: Any, place: tuple) -> type | None:
        """Return the class of a data set or model, or note that there is none."""
        base, package = {
            "data": (AnomalibDataModule, anomalib_data),
            "models": (AnomalibModule, anomalib_models),
        }[section]
        if not isinstance(class_path, str):
            self._problem(place, f"expected the class_path of a {base.__name__}, got {class_path!r}")
            return None
        cls = getattr(package, class_path, None) if "." not in class_path else import_class(class_path)
        if isinstance(cls, type) and issubclass(cls, base):
            return cls
        names = [name for name in package.__all__ if is_proper_subclass(getattr(package, name, None), base)]
        self._problem(place, f"no {base.__name__} is called {class_path!r}{_nearest(class_path, names)}")
        return None

    def _held_out(self, init_args: dict[str, Any], place: tuple) -> dict[str, Any]:
        """Return the arguments of a data set with validation images that are not test images."""
        mode = init_args.get("val_split_mode", DEFAULT_VALIDATION_SPLIT["val_split_mode"])
        if mode in ("same_as_test", "none"):
            self._problem(
                place,
                f"val_split_mode {mode!r} leaves no validation images apart from the test set, where thresholds would "
                "be chosen; use synthetic, from_train, from_test or from_dir, or leave it out",
            )
        return DEFAULT_VALIDATION_SPLIT | init_args if mode == DEFAULT_VALIDATION_SPLIT["val_split_mode"] else init_args

    def _choices(self, grid: Any, parameters: Mapping[str, Any], place: tuple) -> Iterator[dict[str, Any]]:
        """Yield all combinations of a grid."""
        grid = self._known_keys(grid, parameters, place)
        for key, values in grid.items():
            if not isinstance(values, list) or not values:
                self._problem((*place, key), f"expected a list of values of {key!r}, got {values!r}")
                return
        for values in itertools.product(*grid.values()):
            yield dict(zip(grid, values, strict=True))

    def _resolve(self, cls: type, init_args: dict[str, Any], choice: dict[str, Any], place: tuple) -> dict[str, Any]:
        """Return all init arguments of a class, its defaults included, as plain values, or note what is wrong."""
        parser = parser_of(cls)
        try:
            resolved = parser.parse_object({"init_args": init_args})
        except ArgumentError as error:
            key, text = _argument_and_message(error)
            self._problem((*place, "grid" if key in choice else "init_args", key), text)
            return {}
        root = init_args.get("root")
        if root is not None and not getattr(cls, "makes_its_root", False) and not Path(root).expanduser().exists():
            self._problem((*place, "init_args", "root"), _missing_folder(cls, root))
        return yaml.safe_load(parser.dump(resolved, skip_none=False)).get("init_args", {})


def _job(data: _Variant, model: _Variant, seed: int, trainer: dict[str, Any], measure: dict[str, Any]) -> Job:
    """Return the job of a data set, a model and a seed."""
    config = {
        "data": _seeded(data, seed),
        "model": _seeded(model, seed),
        "trainer": trainer | model.trainer,
        "measure": measure,
        "seed": seed,
    }
    return Job(data.name, model.name, model.grid, seed, model.weights, config, data.line)


def _seeded(variant: _Variant, seed: int) -> dict[str, Any]:
    """Return the configuration of a variant with the job's seed where its class takes one."""
    if not variant.takes_seed:
        return variant.config
    return variant.config | {"init_args": variant.config["init_args"] | {"seed": seed}}


def _weights(init_args: Mapping[str, Any]) -> str:
    """Tell from its arguments what a model starts from: ours have ``weights``, anomalib's ``pre_trained``."""
    if "weights" in init_args:
        return {"packaged": "imagenet", "timm": "imagenet", "random": "random"}.get(init_args["weights"], "local")
    return "imagenet" if init_args.get("pre_trained") else "random"


def _missing_folder(cls: type, root: Any) -> str:
    return (
        f"there is no folder {root} (from {Path.cwd()}); correct the path, or let {cls.__name__} make it first: "
        f"python -c \"import anomalib_lamp, anomalib.data as d; d.{cls.__name__}(root='{root}').prepare_data()\""
    )


def _nearest(name: object, known: Sequence[str] | Mapping[str, Any]) -> str:
    """Return the known names that someone may have meant."""
    close = difflib.get_close_matches(str(name), list(known), n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; known are {', '.join(sorted(known))}" if known else "; none is taken here"


def _argument_and_message(error: ArgumentError) -> tuple[str, str]:
    """Return the init argument that jsonargparse complains of, and its message on one line."""
    text = " ".join(str(error).replace("init_args.", "").split())
    found = re.search(r'key "(\w+)', text)
    return (found[1] if found else ""), text


def _as_yaml(value: Any) -> str:
    """Return a grid value as it is written in YAML."""
    return json.dumps(value) if not isinstance(value, str) else value
