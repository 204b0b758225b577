"""What a worker process does with a job: lock it, run it, write its record; the same for every executor."""

import contextlib
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock, Timeout

from .environment import describe_origin
from .job import Job, identity, run_job
from .records import Record, ResultFolder, tail

Outcome = Literal["finished", "failed", "busy"]
EXIT_CODES: dict[Outcome, int] = {"finished": 0, "failed": 74, "busy": 75}  # 1 is Python's own, for a crash


def work_on(job: Job, root: Path, threads: int | None = None) -> Outcome:
    """Run a job unless it has a result or another process is on it, and write its record.

    The lock belongs to the operating system's open file: when this process dies, however, it is free again.

    Args:
        job: What to run.
        root: Folder of the sweep; every worker must see it.
        threads: CPU threads of torch; its own choice if not given.

    Returns:
        ``finished`` or ``failed`` when there is a record, ``busy`` when another process works on the job.
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
        record = _attempt(job, folder.work_path(job.id), threads)
        folder.write(record)
        return record.status


def _attempt(job: Job, work: Path, threads: int | None) -> Record:
    """Run a job with its output in a log file; whatever goes wrong becomes a failed record."""
    work.mkdir(parents=True, exist_ok=True)
    attempt = count_attempt(work)
    started = datetime.now(timezone.utc)
    if threads:
        torch.set_num_threads(threads)
    with _output_to(work / "log.txt"):
        try:
            record = run_job(job, work)
        except Exception:
            traceback.print_exc()
            record = failed_record(job, started, tail(traceback.format_exc()))
    return record.model_copy(update={"attempt": attempt})


def failed_record(job: Job, started: datetime, error: str, attempt: int = 1) -> Record:
    """Return the record of a job that failed."""
    device = str(job.config["trainer"].get("accelerator", "auto"))
    origin = describe_origin(started, device)
    return Record(**identity(job), status="failed", error=error, attempt=attempt, origin=origin)


def count_attempt(work: Path) -> int:
    """Note that a job is started, and return how often it has been."""
    counter = work / "attempts.txt"
    attempt = attempts(work) + 1
    counter.write_text(str(attempt))
    return attempt


def attempts(work: Path) -> int:
    """Return how often a job has been started."""
    counter = work / "attempts.txt"
    return int(counter.read_text() or 0) if counter.exists() else 0


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


def process_main(job: Job, root: Path, threads: int | None, start_method: str) -> None:
    """Work on a job in a process of its own, which ends with the runner even if the runner is killed.

    Args:
        job: What to run.
        root: Folder of the sweep.
        threads: CPU threads of torch; its own choice if not given.
        start_method: How the job's data loaders start their workers; the way this process was started would have every
            one of them import torch anew in every epoch.
    """
    multiprocessing.set_start_method(start_method, force=True)
    threading.Thread(target=_end_with_the_runner, daemon=True).start()
    sys.exit(EXIT_CODES[work_on(job, root, threads)])


def _end_with_the_runner() -> None:
    """Wait for the parent to end, then end this process at once; its unfinished job has no record."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
