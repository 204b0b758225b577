"""What a worker process does with a job: lock it, run it, write its record; the same for every executor."""

import contextlib
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock, Timeout

from .environment import describe_origin
from .job import Job, identity, run_job
from .records import Record, ResultFolder, tail

NO_RESULT = "No result: the job is still running, or its process was stopped."


@dataclass(frozen=True)
class Ending:
    """How a worker ended.

    Attributes:
        outcome: ``finished`` or ``failed`` when there is a record of that, ``busy`` when another process works on the
            job, ``unsaved`` when the results folder cannot be written to, ``late`` after the job's timeout, ``died``
            when the process ended in any other way.
        reason: Why there is no result.
    """

    outcome: Literal["finished", "failed", "busy", "unsaved", "late", "died"]
    reason: str = ""


def work_on(job: Job, root: Path, threads: int | None = None) -> Literal["finished", "failed", "busy"]:
    """Run a job unless it has a result or another process is on it, and write its record.

    The lock belongs to the operating system's open file: when this process dies, however, it is free again. From the
    first moment there is a record, ``started``, so that a job whose process is killed does not vanish.

    Args:
        job: What to run.
        root: Folder of the sweep; every worker must see it.
        threads: CPU threads of torch; its own choice if not given.

    Returns:
        ``finished`` or ``failed`` when there is a record, ``busy`` when another process works on the job.

    Raises:
        OSError: If the folder cannot be written to.
    """
    folder = ResultFolder(root)
    folder.lock_path(job.id).parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.lock_path(job.id))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return "busy"
    with lock:
        earlier = folder.read(job.id)
        if earlier is not None and earlier.status == "finished":
            return "finished"
        begun = record_without_result(job, "started", NO_RESULT, attempt=earlier.attempt + 1 if earlier else 1)
        folder.write(begun)
        record = _attempt(job, begun, folder.work_path(job.id), threads)
        folder.write(record)
        return "finished" if record.status == "finished" else "failed"


def _attempt(job: Job, begun: Record, work: Path, threads: int | None) -> Record:
    """Run a job with its output in a log file; whatever goes wrong becomes a failed record."""
    work.mkdir(parents=True, exist_ok=True)
    if threads:
        torch.set_num_threads(threads)
    with _output_to(work / "log.txt"):
        try:
            return run_job(job, work).model_copy(update={"attempt": begun.attempt})
        except Exception:
            traceback.print_exc()
            error = tail(traceback.format_exc())
            return record_without_result(job, "failed", error, begun.attempt, begun.origin.started)


def record_without_result(
    job: Job, status: Literal["started", "failed"], error: str, attempt: int, started: datetime | None = None
) -> Record:
    """Return the record of a job that has no result, yet or at all."""
    device = str(job.config["trainer"].get("accelerator", "auto"))
    origin = describe_origin(started or datetime.now(timezone.utc), device)
    return Record(**identity(job), status=status, error=error, attempt=attempt, origin=origin)


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send everything that this process prints, also from C, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with path.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, original in zip((1, 2), saved, strict=True):
                os.dup2(original, number)
                os.close(original)


def process_main(job: Job, root: Path, threads: int | None, start_method: str, sender: Connection) -> None:
    """Work on a job in a process of its own, which ends with the runner even if the runner is killed.

    Args:
        job: What to run.
        root: Folder of the sweep.
        threads: CPU threads of torch; its own choice if not given.
        start_method: How the job's data loaders start their workers; the way this process was started would have every
            one of them import torch anew in every epoch.
        sender: Gets the :class:`Ending`. An exit status would tell less: a job can end the process with any.
    """
    multiprocessing.set_start_method(start_method, force=True)
    threading.Thread(target=_end_with_the_runner, daemon=True).start()
    try:
        ending = Ending(work_on(job, root, threads))
    except OSError as error:
        ending = Ending("unsaved", f"The result cannot be saved: {error}")
    sender.send(ending)


def _end_with_the_runner() -> None:
    """Wait for the parent to end, then end this process at once; its unfinished job stays ``started``."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
