"""Where jobs run: processes of this machine, or a Ray cluster."""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, Protocol

from filelock import FileLock, Timeout

from .job import Job
from .records import ResultFolder, tail
from .worker import EXIT_CODES, attempts, failed_record, process_main, work_on

BUSY_PAUSE_SECONDS = 2.0  # seconds between looks at a job that another runner works on


@dataclass(frozen=True)
class Event:
    """What happened to a job."""

    job: Job
    state: Literal["started", "finished", "failed", "retried"]


class Executor(Protocol):
    """Runs jobs; every job ends with a record in the folder."""

    def run(self, jobs: Sequence[Job], root: Path) -> Iterator[Event]:
        """Yield what happens to the jobs as it happens."""


class LocalExecutor:
    """Runs jobs in fresh processes of this machine, so that memory, seeds and crashes of one do not touch another.

    Where the system can fork, processes come from a server that has imported torch and anomalib once.

    Args:
        processes: How many jobs run at a time; they share the CPU's threads evenly.
        retries: How often a job is started again whose process died (killed, out of memory, crashed in C).
    """

    def __init__(self, processes: int = 1, retries: int = 1) -> None:
        if processes < 1 or retries < 0:
            msg = f"Expected processes >= 1 and retries >= 0, got {processes} and {retries}."
            raise ValueError(msg)
        self.processes = processes
        self.retries = retries
        methods = multiprocessing.get_all_start_methods()
        self._context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            self._context.set_forkserver_preload([process_main.__module__])

    def run(self, jobs: Sequence[Job], root: Path) -> Iterator[Event]:
        """Yield what happens to the jobs as it happens."""
        waiting = deque((job, 0) for job in jobs)
        running: dict[BaseProcess, tuple[Job, int]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.processes:
                    job, deaths = waiting.popleft()
                    running[self._start(job, root)] = job, deaths
                    yield Event(job, "started")
                wait([process.sentinel for process in running])
                for process in [process for process in running if not process.is_alive()]:
                    job, deaths = running.pop(process)
                    if process.exitcode == EXIT_CODES["busy"]:
                        waiting.append((job, deaths))
                        time.sleep(BUSY_PAUSE_SECONDS)
                        continue
                    death = _death(process.exitcode)
                    if death and deaths < self.retries:
                        waiting.append((job, deaths + 1))
                        yield Event(job, "retried")
                    else:
                        yield Event(job, _settle(job, root, death))
        finally:
            for process in running:
                process.kill()
                process.join()

    def _start(self, job: Job, root: Path) -> BaseProcess:
        threads = max(1, (os.cpu_count() or 1) // self.processes) if self.processes > 1 else None
        arguments = (job, root, threads, multiprocessing.get_start_method())
        process = self._context.Process(target=process_main, args=arguments)  # type: ignore[attr-defined]
        process.start()
        return process


class RayExecutor:
    """Runs jobs on a Ray cluster whose nodes have this package installed and see the folder of the sweep.

    Ray starts a job again whose worker died; every job gets a fresh worker.

    Args:
        address: Address of the cluster, ``auto`` for the one this machine belongs to; ``None`` starts one here.
        cpus: CPU cores of a job.
        gpus: GPUs of a job; fractions share one.
        retries: How often a job is started again whose worker died.

    Raises:
        ImportError: If Ray is not installed.
    """

    def __init__(self, address: str | None = None, cpus: float = 1, gpus: float = 0, retries: int = 1) -> None:
        try:
            import ray
        except ImportError:
            msg = "The executor `ray` needs Ray; `pip install 'anomalib-lamp[ray]'`"
            raise ImportError(msg) from None
        self._ray = ray
        self.address = address
        self.resources = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": retries, "max_calls": 1}

    def run(self, jobs: Sequence[Job], root: Path) -> Iterator[Event]:
        """Yield what happens to the jobs as it happens."""
        ray = self._ray
        ray.init(address=self.address, log_to_driver=False, include_dashboard=False if not self.address else None)
        try:
            task = ray.remote(**self.resources)(work_on)
            running: dict[Any, Job] = {}
            for job in jobs:
                running[task.remote(job, root.resolve())] = job
                yield Event(job, "started")
            while running:
                for reference in ray.wait(list(running))[0]:
                    job = running.pop(reference)
                    death = None
                    try:
                        if ray.get(reference) == "busy":
                            time.sleep(BUSY_PAUSE_SECONDS)
                            running[task.remote(job, root.resolve())] = job
                            continue
                    except ray.exceptions.RayError as error:
                        death = f"The Ray worker died: {tail(str(error))}"
                    yield Event(job, _settle(job, root, death))
        finally:
            ray.shutdown()


def _settle(job: Job, root: Path, death: str | None) -> Literal["finished", "failed"]:
    """Return how a job ended; if its worker died, first write that it failed and why."""
    folder = ResultFolder(root)
    if death:
        with suppress(Timeout), FileLock(folder.lock_path(job.id), timeout=10):
            _record_death(job, folder, death)
    record = folder.read(job.id)
    return record.status if record else "failed"


def _record_death(job: Job, folder: ResultFolder, death: str) -> None:
    """Write a failed record with the end of the log, unless the job has a result after all."""
    earlier = folder.read(job.id)
    if earlier is not None and earlier.status == "finished":
        return
    work = folder.work_path(job.id)
    log = work / "log.txt"
    error = "\n".join([*([tail(log.read_text(errors="replace"))] if log.exists() else []), death])
    folder.write(failed_record(job, datetime.now(timezone.utc), error, attempt=max(1, attempts(work))))


def _death(exit_code: int | None) -> str | None:
    """Return why a process died, or ``None`` if it ended by itself."""
    if exit_code in EXIT_CODES.values():
        return None
    if exit_code is None or exit_code >= 0:
        return f"The process died with exit code {exit_code}."
    killed = " Was the memory exhausted?" if exit_code == -signal.SIGKILL else ""
    return f"The process died by {signal.Signals(-exit_code).name}.{killed}"
