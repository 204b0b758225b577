"""The record of a job: one line of JSON with a schema, written whole or not at all."""

import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

MAX_LINE_LENGTH = 500  # characters kept of a line of an error
LOG_END_BYTES = 2**16  # of a log, whatever its size, this much is read for its last lines


class _Strict(BaseModel):
    """Base of the schema: unknown keys and lossy conversions are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Metrics(_Strict):
    """Quality on the test set, from unclipped scores; ``None`` where the data or the model has no such thing.

    The F1 scores use the threshold that the model chose on validation data.
    """

    # ruff: noqa: N815 (anomalib's names)
    image_AUROC: float | None = Field(default=None, ge=0, le=1)
    pixel_AUROC: float | None = Field(default=None, ge=0, le=1)
    AUPRO: float | None = Field(default=None, ge=0, le=1)
    image_F1: float | None = Field(default=None, ge=0, le=1)
    pixel_F1: float | None = Field(default=None, ge=0, le=1)


class ImageScore(_Strict):
    """Score of one test image; ``path`` is relative to the data's root, ``kind`` is the name of its folder."""

    path: str
    kind: str
    anomalous: bool
    score: float


class Latency(_Strict):
    """Time of one forward pass, pre- and post-processing included, after warm-up, in milliseconds."""

    batch_size: int = Field(ge=1)
    image_size: int = Field(ge=1)
    median_ms: float = Field(gt=0)
    iqr_ms: float = Field(ge=0)
    runs: int = Field(ge=1)


class Cost(_Strict):
    """What a job took: seconds of its parts, memory in MiB, size of the model."""

    train_seconds: float = Field(ge=0)
    test_seconds: float = Field(ge=0)
    total_seconds: float = Field(ge=0)
    epochs: int = Field(ge=0)
    steps: int = Field(ge=0)
    peak_rss_mib: float | None = Field(default=None, gt=0)
    peak_gpu_mib: float | None = Field(default=None, ge=0)
    parameters: int = Field(ge=0)
    exported_mib: float | None = Field(default=None, gt=0)
    latency: list[Latency] = []


class Multipliers(_Strict):
    """What LAMP multiplied the gradients of errors by in the last epoch, where the spec has a model amplified."""

    median: float = Field(ge=1)
    p99: float = Field(ge=1)


class Origin(_Strict):
    """Where and with what a job ran."""

    started: AwareDatetime = Field(strict=False)
    ended: AwareDatetime = Field(strict=False)
    machine: str
    device: str
    threads: int = Field(ge=1)
    python: str
    versions: dict[str, str]
    commit: str | None


class Record(_Strict):
    """The result of one job.

    Attributes:
        job: Identity of the job, a hash of ``config``.
        data: Name of the data set in the spec, with its grid values.
        model: Name of the model in the spec, with its grid values.
        grid: The model's grid values alone, for tables.
        seed: Seed of the job.
        weights: What the model started from.
        config: The resolved job: classes, all init arguments, trainer arguments.
        status: ``started`` from the moment a worker begins until there is a result; it stays if all was killed.
        error: For a job without result: the last lines of what went wrong.
        attempt: How often the job was started, counting workers that died.
        metrics: Quality; ``None`` without result.
        images: Score of every test image.
        cost: Time, memory and size; ``None`` without result.
        multipliers: What LAMP did; ``None`` where it was not asked for, or the training too short for it to begin.
        origin: Machine, versions, commit, times.
    """

    schema_version: Literal[1] = 1
    job: str = Field(pattern="^[0-9a-f]{12}$")
    data: str
    model: str
    grid: dict[str, Any] = {}
    seed: int
    weights: Literal["imagenet", "local", "random"]
    config: dict[str, Any]
    status: Literal["started", "finished", "failed"]
    error: str | None = None
    attempt: int = Field(1, ge=1)
    metrics: Metrics | None = None
    images: list[ImageScore] = []
    cost: Cost | None = None
    multipliers: Multipliers | None = None
    origin: Origin

    def to_line(self) -> str:
        """Return the record as one line of JSON."""
        return self.model_dump_json() + "\n"


class ResultFolder:
    """The folder of a sweep: ``jobs/ID.json`` holds the record of a job, ``work/ID/`` what it needs and its pictures.

    A record gets its name once it is completely on the disk, so a process that is killed leaves no torn line.

    Args:
        root: The folder; made when first written to. It stays the same folder when the process changes its own.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).resolve()

    def make(self) -> None:
        """Make the folder and those in it; raise OSError if something else is in their place."""
        for name in ("jobs", "work"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def lock(self) -> FileLock:
        """Return the lock of what belongs to no single job: the spec, the collected results, the drawing of data."""
        return FileLock(self.root / "folder.lock")

    def record_path(self, job_id: str) -> Path:
        """Return where the record of a job lies."""
        return self.root / "jobs" / f"{job_id}.json"

    def lock_path(self, job_id: str) -> Path:
        """Return the file that a worker locks while it runs a job."""
        return self.root / "jobs" / f"{job_id}.lock"

    def work_path(self, job_id: str) -> Path:
        """Return the folder that a job writes its log, checkpoints and pictures to."""
        return self.root / "work" / job_id

    def pictures(self, job_id: str) -> list[Path]:
        """Return the pictures that a job kept, sorted by name: hits, misses and false alarms."""
        return sorted((self.work_path(job_id) / "pictures").glob("*.jpg"))

    def drop_checkpoints(self, job_id: str) -> None:
        """Delete the checkpoints of a job, which can be far larger than everything else."""
        for checkpoint in self.work_path(job_id).rglob("*.ckpt"):
            with suppress(OSError):  # one that cannot be deleted stays
                checkpoint.unlink()

    def write(self, record: Record) -> None:
        """Write a record, replacing an earlier one of the same job; only who holds the job's lock may do so."""
        write_durably(self.record_path(record.job), record.to_line())

    def drop_unfinished(self, job_ids: Collection[str]) -> None:
        """Delete records without result of jobs other than these: their entry was mended or taken out of the spec."""
        for record in self.records():
            if record.status != "finished" and record.job not in job_ids:
                self.record_path(record.job).unlink(missing_ok=True)

    def read(self, job_id: str) -> Record | None:
        """Return the record of a job, or ``None`` if there is none or it is damaged."""
        record = _read_or_tell(self.record_path(job_id))
        return record if isinstance(record, Record) else None

    def records(self, damage: list[str] | None = None) -> list[Record]:
        """Return all records, ordered by job, without those that cannot be read.

        Args:
            damage: Gets a line for each record that cannot be read.
        """
        found = [_read_or_tell(path) for path in sorted((self.root / "jobs").glob("*.json"))]
        if damage is not None:
            damage += [text for text in found if isinstance(text, str)]
        return [record for record in found if isinstance(record, Record)]

    def collect(self, records: Iterable[Record]) -> Path:
        """Write the records to ``results.jsonl``, the file to commit or to send, and return its path."""
        path = self.root / "results.jsonl"
        with self.lock():
            write_durably(path, "".join(record.to_line() for record in records))
        return path


def read_records(results: Path | str, damage: list[str] | None = None) -> list[Record]:
    """Return the records of a sweep's folder or of a ``.jsonl`` file.

    Args:
        results: The folder or the file.
        damage: Gets a line for each record of a folder that cannot be read; such records are left out.

    Raises:
        FileNotFoundError: If there is no such file or folder, or no record in it.
        ValueError: If a line of a file does not follow the schema; the message names the file, the line and the field.

    Example:
        >>> read_records("nowhere")
        Traceback (most recent call last):
        FileNotFoundError: Expected a folder made by `anomalib-lamp compare` or its results.jsonl, got nowhere.
    """
    results = Path(results)
    if results.is_dir():
        records = ResultFolder(results).records(damage)
    elif results.is_file():
        lines = results.read_text(encoding="utf-8").rstrip("\n").split("\n")
        records = [parse_record(line, f"{results}, line {number}") for number, line in enumerate(lines, start=1)]
    else:
        records = []
    if not records:
        msg = f"Expected a folder made by `anomalib-lamp compare` or its results.jsonl, got {results}."
        raise FileNotFoundError("\n".join([msg, *(damage or [])]))
    return records


def parse_record(line: str, place: str) -> Record:
    """Return the record in a line of JSON.

    Args:
        line: The line.
        place: Where it stands, for the error message.

    Raises:
        ValueError: If the line does not follow the schema.
    """
    try:
        return Record.model_validate_json(line)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        msg = f"{place} is not a record of schema version 1: {shorten(faults)}"
        raise ValueError(msg) from None


def _read_or_tell(path: Path) -> Record | str | None:
    """Return the record in a file, ``None`` if there is no file, or a line that says why it cannot be read."""
    try:
        return parse_record(path.read_text(encoding="utf-8"), "it")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return f"Left out {path}: {error}. The job is run again if it is one of the spec."


def write_durably(path: Path, text: str) -> None:
    """Write a file so that its name shows either the old or the whole new text, also after a power cut.

    Only one process at a time may write it: what an earlier one left of its attempt when it was killed is written over.

    Raises:
        OSError: If it cannot be written; the old text stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise
    if os.name == "posix":  # elsewhere folders cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def finished(records: Iterable[Record]) -> list[Record]:
    """Return the records of jobs that ended well."""
    return [record for record in records if record.status == "finished"]


def schema() -> dict[str, Any]:
    """Return the JSON schema of a record, for those who read results with other tools.

    Example:
        >>> schema()["properties"]["status"]["enum"]
        ['started', 'finished', 'failed']
    """
    return Record.model_json_schema()


def tail(text: str, lines: int = 15) -> str:
    """Return the last lines of a text, each cut to a length that can be read."""
    return "\n".join(map(shorten, text.rstrip().splitlines()[-lines:]))


def tail_of_file(path: Path) -> str:
    """Return the last lines of a file; nothing if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_END_BYTES))
            return tail(file.read().decode(errors="replace"))
    except OSError:
        return ""


def shorten(text: str, length: int = MAX_LINE_LENGTH) -> str:
    """Return a text cut to a length, with the number of characters that were left out.

    Example:
        >>> shorten("abcdefgh", length=5)
        'abcde ... (3 more characters)'
    """
    return text if len(text) <= length else f"{text[:length]} ... ({len(text) - length} more characters)"
