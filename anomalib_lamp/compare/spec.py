"""The spec of a sweep: data sets x models x grids x seeds in YAML, checked as a whole before anything runs."""

import difflib
import itertools
import json
import math
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

from anomalib_lamp.amplification.registry import reason_against

from .classes import import_class, is_proper_subclass, parser_of
from .job import Job
from .records import shorten
from .yaml_lines import NotYAMLError, read_yaml

SPEC_KEYS = ("data", "models", "seeds", "trainer", "measure", "job_timeout")
SEEDS = range(2**32)
MAX_JOBS = 10_000
LEAST = {  # the least value of arguments that count something, of the trainer and of a model or data set
    "max_epochs": 1,
    "max_steps": 1,
    "min_epochs": 1,
    "min_steps": 1,
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "limit_train_batches": 0,
    "limit_val_batches": 0,
    "limit_test_batches": 0,
    "gradient_clip_val": 0,
    "train_batch_size": 1,
    "eval_batch_size": 1,
    "num_workers": 0,
}
WITHOUT_LIMIT = {"max_epochs": -1, "max_steps": -1}  # values of Lightning's Trainer that mean "no limit"
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
    stfpm with lamp:
      class_path: Stfpm
      trainer: {max_epochs: 20}
      weights: imagenet
      amplify: true
  seeds: [0, 1, 2]
  trainer: {accelerator: auto}
  measure: {latency_batch_sizes: [1, 32], latency_image_size: 256}
  job_timeout: 3600

data, models  Names to entries. class_path: a class of anomalib or a plugin,
              by name or dotted path. init_args: its arguments. grid: lists
              of values of arguments; all combinations become jobs.
seeds         Default [0], below 2**32. A job's goes to data set and model
              where they take one.
trainer       Arguments of Lightning's Trainer, for all models or, inside a
              model, for that one. A job runs on one device.
weights       Inside a model, for the tables: imagenet, local or random. By
              default what its weights or pre_trained says.
amplify       Inside a model of anomalib: true trains it with LAMP.
measure       latency_batch_sizes, latency_image_size, export (true, false).
job_timeout   Seconds after which a job is stopped and has failed. By default
              there is no limit.

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
        lines = [f"{path}:{problem.line}: {shorten(' '.join(problem.text.split()))}" for problem in self.problems]
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
    place: tuple
    grid: dict[str, Any]
    config: dict[str, Any]
    takes_seed: bool
    line: int
    trainer: dict[str, Any] = field(default_factory=dict)
    weights: str = "random"
    amplify: bool = False


def read_spec(path: Path | str, max_jobs: int = MAX_JOBS) -> list[Job]:
    """Return the jobs of a spec, ordered by seed, then data set, then model.

    The grammar is that of :data:`GRAMMAR`. Every job's seed becomes the ``seed`` argument of its datamodule and model
    where they take one.

    Args:
        path: The YAML file.
        max_jobs: A spec with more jobs is refused, before its grids are resolved.

    Raises:
        SpecError: If anything in it is unknown, mistyped, missing or there twice; it names all problems with their
            lines.
        FileNotFoundError: If there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"Expected a YAML file that says what to compare, got {path}, which does not exist."
        raise FileNotFoundError(msg)
    return _Reader(path).jobs(max_jobs)


def check_timeout(seconds: Any) -> float | None:
    """Return a timeout in seconds, or ``None`` for no limit.

    Raises:
        ValueError: If it is not a positive, finite number.
    """
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        msg = f"Expected job_timeout to be a positive number of seconds, got {seconds!r}."
        raise ValueError(msg)
    return float(seconds)


class _Reader:
    """Reads one spec and gathers everything that is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.lines: dict[tuple, int] = {}

    def jobs(self, max_jobs: int) -> list[Job]:
        """Return the jobs, or raise with all problems."""
        spec = self._load()
        self._known_keys(spec, SPEC_KEYS, ())
        seeds = self._seeds(spec)
        timeout = self._timeout(spec)
        self._check_number(spec, len(seeds), max_jobs)
        measure = self._measure(spec.get("measure", {}))
        trainer = self._trainer(spec.get("trainer", {}), ("trainer",))
        data = self._entries(spec, "data")
        models = self._entries(spec, "models")
        self._check_distinct(data, {})
        self._check_distinct(models, trainer)
        if self.problems:
            raise SpecError(self.path, self.problems)
        base = Path.cwd()
        return [
            _job(data_variant, model_variant, seed, trainer, measure, timeout, base)
            for seed, data_variant, model_variant in itertools.product(seeds, data, models)
        ]

    def _load(self) -> dict[str, Any]:
        content = self.path.read_bytes()
        try:
            document = read_yaml(content.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise SpecError(self.path, [Problem(line, "not UTF-8; save the file in that encoding")]) from None
        except NotYAMLError as error:
            raise SpecError(self.path, [Problem(error.line, str(error))]) from None
        spec, self.lines = document.content, document.lines
        self.problems = [Problem(*fault) for fault in document.faults]
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
        if not (isinstance(seeds, list) and seeds and all(type(seed) is int and seed in SEEDS for seed in seeds)):
            self._problem(("seeds",), f"expected a list of integers from 0 up to 2**32 - 1, got {seeds!r}")
            return []
        if len(set(seeds)) < len(seeds):
            self._problem(("seeds",), f"a seed stands twice in {seeds!r}")
        return seeds

    def _timeout(self, spec: dict[str, Any]) -> float | None:
        try:
            return check_timeout(spec.get("job_timeout"))
        except ValueError as error:
            self._problem(("job_timeout",), str(error))
        return None

    def _check_number(self, spec: dict[str, Any], seeds: int, max_jobs: int) -> None:
        """Raise SpecError if there are too many jobs, before any of them is resolved."""
        data, models = _count_variants(spec.get("data")), _count_variants(spec.get("models"))
        jobs = data * models * seeds
        if jobs > max_jobs:
            counts = f"{data:,} data sets x {models:,} models x {seeds:,} seeds"
            remedy = f"make the grids smaller, or allow as many with --max_jobs {jobs}"
            place = ("data" if data > models else "models",)
            self._problem(place, f"{jobs:,} jobs, {counts}, are more than {max_jobs:,}; {remedy}")
            raise SpecError(self.path, self.problems)

    def _check_distinct(self, variants: Sequence[_Variant], trainer: dict[str, Any]) -> None:
        """Note variants that share a name, which a report cannot tell apart, and those that differ in name only."""
        names: dict[str, _Variant] = {}
        contents: dict[str, _Variant] = {}
        for variant in variants:
            differing = [variant.config, variant.takes_seed, trainer | variant.trainer, variant.amplify]
            content = json.dumps(differing, sort_keys=True)
            if (first := names.setdefault(variant.name, variant)) is not variant:
                text = f"{variant.name!r} is the name of two variants, first in line {first.line}; change one"
                self._problem(variant.place, text)
            elif (first := contents.setdefault(content, variant)) is not variant:
                text = f"{variant.name!r} has the same arguments as {first.name!r} in line {first.line}; remove one"
                self._problem(variant.place, text)
            if not variant.name.isprintable():
                self._problem(variant.place, f"the name {variant.name!a} has characters that cannot be printed")

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
        for key, value in arguments.items():
            if value != WITHOUT_LIMIT.get(key):
                self._check_least(key, value, (*place, key))
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
        return [variant for name, entry in entries.items() for variant in self._entry(section, name, entry)]

    def _check_least(self, key: str, value: Any, place: tuple) -> None:
        """Note a number that is too small for what it counts."""
        if key in LEAST and isinstance(value, int | float) and value < LEAST[key]:
            self._problem(place, f"expected {key} of {LEAST[key]} or more, got {value!r}")

    def _entry(self, section: str, name: Any, entry: Any) -> Iterator[_Variant]:
        """Yield the variants of one entry; nothing if something is wrong with it."""
        place = (section, name)
        known = ["class_path", "init_args", "grid", *(["trainer", "weights", "amplify"] if section == "models" else [])]
        entry = self._known_keys({"class_path": entry} if isinstance(entry, str) else entry, known, place)
        trainer = self._trainer(entry.get("trainer", {}), (*place, "trainer"))
        if entry.get("weights", "random") not in WEIGHT_SOURCES:
            self._problem((*place, "weights"), f"expected one of {', '.join(WEIGHT_SOURCES)}, got {entry['weights']!r}")
        cls = self._class(section, entry.get("class_path"), (*place, "class_path"))
        if cls is None:
            return
        self._check_amplify(entry.get("amplify", False), cls, (*place, "amplify"))
        parameters = signature(cls).parameters
        init_args = self._known_keys(entry.get("init_args", {}), parameters, (*place, "init_args"))
        if section == "models":
            init_args = {name: False for name in COMPONENTS_OFF_BY_DEFAULT if name in parameters} | init_args
        for key, value in init_args.items():
            self._check_least(key, value, (*place, "init_args", key))
        resolver = _Resolver(cls)
        for choice in self._choices(entry.get("grid", {}), parameters, (*place, "grid")):
            given = init_args | choice
            if section == "data" and "val_split_mode" in parameters:
                stands = "grid" if "val_split_mode" in choice else "init_args"
                given = self._held_out(given, (*place, stands, "val_split_mode"))
            resolved = self._resolve(resolver, given, choice, place)
            if resolved is None:
                continue
            yield _Variant(
                name=" ".join([str(name), *(f"{key}={_as_yaml(value)}" for key, value in choice.items())]),
                place=(*place, "grid") if choice else place,
                grid=choice,
                config={"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": resolved},
                takes_seed="seed" in parameters and given.get("seed") is None,
                line=self.lines.get(place, 1),
                trainer=trainer,
                weights=entry.get("weights") or _weights(resolved),
                amplify=entry.get("amplify", False),
            )

    def _check_amplify(self, amplify: Any, cls: type, place: tuple) -> None:
        """Note a model whose loss cannot be amplified."""
        if not isinstance(amplify, bool):
            self._problem(place, f"expected amplify to be true or false, got {amplify!r}")
        elif amplify and (reason := _reason_against_amplifying(cls)) is not None:
            self._problem(place, f"amplify is for reconstruction losses of anomalib's own models: {reason}")

    def _class(self, section: str, class_path: Any, place: tuple) -> type | None:
        """Return the class of a data set or model, or note that there is none."""
        base, package = {
            "data": (AnomalibDataModule, anomalib_data),
            "models": (AnomalibModule, anomalib_models),
        }[section]
        if not isinstance(class_path, str):
            self._problem(place, f"expected the class_path of a {base.__name__}, got {class_path!r}")
            return None
        try:
            cls = getattr(package, class_path, None) if "." not in class_path else import_class(class_path)
        except Exception as error:  # whatever a module does when it is imported
            self._problem(place, f"importing {class_path!r} failed: {type(error).__name__}: {error}")
            return None
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
            for value in values:
                self._check_least(key, value, (*place, key))
        for values in itertools.product(*grid.values()):
            yield dict(zip(grid, values, strict=True))

    def _resolve(
        self, resolver: "_Resolver", init_args: dict[str, Any], choice: dict[str, Any], place: tuple
    ) -> dict[str, Any] | None:
        """Return all init arguments of a class, its defaults included, as plain values, or note what is wrong."""
        cls = resolver.cls
        if resolver.has_refused(init_args):
            return None
        try:
            resolved = resolver.resolve(init_args)
        except ArgumentError as error:
            key, text = _argument_and_message(error)
            self._problem((*place, "grid" if key in choice else "init_args", key), text)
            resolver.refuse(key, init_args)
            return None
        root = init_args.get("root")
        if root is not None and not getattr(cls, "makes_its_root", False) and not Path(root).expanduser().exists():
            self._problem((*place, "init_args", "root"), _missing_folder(cls, root))
        return resolved


class _Resolver:
    """Resolves the init arguments of a class; a value is parsed once, in however many variants it stands.

    To parse all arguments takes about 20 ms, which would be minutes for a grid of 10,000 variants.
    """

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self._first: dict[tuple[str, ...], tuple[dict[str, Any], dict[str, Any]]] = {}
        self._values: dict[tuple[str, str], Any] = {}
        self._refused: set[tuple[str, str]] = set()

    def resolve(self, init_args: dict[str, Any]) -> dict[str, Any]:
        """Return all init arguments, defaults included, as plain values.

        Raises:
            ArgumentError: If one is not what the class takes.
        """
        names = tuple(init_args)
        if names not in self._first:
            self._first[names] = init_args, self._parse(init_args)
        given, resolved = self._first[names]
        changed = {key: value for key, value in init_args.items() if value is not given[key]}
        return resolved | {key: self._value(key, value, given) for key, value in changed.items()}

    def refuse(self, key: str, init_args: dict[str, Any]) -> None:
        """Remember that an argument is wrong, so that it is not parsed and told again; all if its name is unknown."""
        keys = [key] if key in init_args else init_args
        self._refused.update((key, json.dumps(init_args[key])) for key in keys)

    def has_refused(self, init_args: dict[str, Any]) -> bool:
        """Return whether an argument is known to be wrong."""
        return any((key, json.dumps(value)) in self._refused for key, value in init_args.items())

    def _value(self, key: str, value: Any, others: dict[str, Any]) -> Any:
        known = key, json.dumps(value)
        if known not in self._values:
            self._values[known] = self._parse(others | {key: value})[key]
        return self._values[known]

    def _parse(self, init_args: dict[str, Any]) -> dict[str, Any]:
        parser = parser_of(self.cls)
        resolved = parser.parse_object({"init_args": init_args})
        return yaml.safe_load(parser.dump(resolved, skip_none=False)).get("init_args", {})


def _count_variants(entries: Any) -> int:
    """Return how many data sets or models there will be, as far as that can be told from an unchecked section."""
    if not isinstance(entries, dict):
        return 0
    grids = [entry.get("grid") if isinstance(entry, dict) else None for entry in entries.values()]
    lists = [[v for v in grid.values() if isinstance(v, list)] if isinstance(grid, dict) else [] for grid in grids]
    return sum(math.prod(map(len, of_grid)) for of_grid in lists)


def _job(
    data: _Variant,
    model: _Variant,
    seed: int,
    trainer: dict[str, Any],
    measure: dict[str, Any],
    timeout: float | None,
    base: Path,
) -> Job:
    """Return the job of a data set, a model and a seed."""
    config = {
        "data": _seeded(data, seed),
        "model": _seeded(model, seed),
        "trainer": trainer | model.trainer,
        "measure": measure,
        "seed": seed,
    }
    if model.amplify:  # otherwise absent, so that jobs of specs without it keep their identity
        config["amplify"] = True
    return Job(data.name, model.name, model.grid, seed, model.weights, config, data.line, timeout, base)


def _seeded(variant: _Variant, seed: int) -> dict[str, Any]:
    """Return the configuration of a variant with the job's seed where its class takes one."""
    if not variant.takes_seed:
        return variant.config
    return variant.config | {"init_args": variant.config["init_args"] | {"seed": seed}}


def _weights(init_args: Mapping[str, Any]) -> str:
    """Tell from its arguments what a model starts from: ours have ``weights``, anomalib's ``pre_trained``."""
    if init_args.get("targets") == "pixels":  # LampAE without features loads no weights
        return "random"
    if "weights" in init_args:
        return {"packaged": "imagenet", "timm": "imagenet", "random": "random"}.get(init_args["weights"], "local")
    return "imagenet" if init_args.get("pre_trained") else "random"


def _reason_against_amplifying(cls: type) -> str | None:
    """Return why the loss of a model cannot be amplified."""
    if "amplify" in signature(cls).parameters:
        return f"give `amplify` of {cls.__name__} under init_args."
    try:
        return reason_against(cls)
    except RuntimeError as error:
        return str(error)


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
