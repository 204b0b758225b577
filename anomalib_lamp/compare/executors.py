"""Where jobs run: processes of this machine, or a Ray cluster."""

import math
import multiprocessing
import os
import signal
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from .job import Job
from .records import ResultFolder, shorten, tail_of_file
from .worker import Ending, process_main, record_without_result

BUSY_PAUSE_SECONDS = 2.0  # seconds between looks at a job that another runner works on


@dataclass(frozen=True)
class Event:
    """What happened to a job, and why if its record does not say so."""

    job: Job
    state: Literal["started", "finished", "failed", "retried"]
    note: str = ""


class Executor(ABC):
    """Runs jobs, each in a process of its own; every job ends with a record in the folder.

    A job whose process ends without a result, whatever its exit status, is started again, but not after its timeout.

    Args:
        retries: How often a job is started again.

    Raises:
        ValueError: If ``retries`` is negative.
    """

    places: float = math.inf  # how many jobs are handed out at a time

    def __init__(self, retries: int) -> None:
        if retries < 0:
            msg = f"Expected retries >= 0, got {retries}."
            raise ValueError(msg)
        self.retries = retries

    def run(self, jobs: Sequence[Job], root: Path) -> Iterator[Event]:
        """Yield what happens to the jobs as it happens."""
        folder = ResultFolder(root)
        waiting, running = deque(jobs), dict[Any, Job]()
        deaths = Counter[str]()
        try:
            while waiting or running:
                while waiting and len(running) < self.places:
                    job = waiting.popleft()
                    running[self._start(job, folder.root)] = job
                    yield Event(job, "started")
                for task, ending in self._wait(running):
                    job = running.pop(task)
                    if ending.outcome == "busy":
                        time.sleep(BUSY_PAUSE_SECONDS)
                        waiting.append(job)
                    elif ending.outcome == "died" and deaths[job.id] < self.retries:
                        deaths[job.id] += 1
                        waiting.append(job)
                        yield Event(job, "retried", ending.reason)
                    else:
                        yield _settle(job, folder, ending)
        finally:
            self._close(running)

    @abstractmethod
    def _start(self, job: Job, root: Path) -> Any:
        """Start a job, and return a handle of it."""

    @abstractmethod
    def _wait(self, tasks: Collection[Any]) -> list[tuple[Any, Ending]]:
        """Return the tasks that have ended, waiting for the first."""

    @abstractmethod
    def _close(self, tasks: Collection[Any]) -> None:
        """Stop the tasks that still run."""


class LocalExecutor(Executor):
    """Runs jobs in fresh processes of this machine, so that memory, seeds and crashes of one do not touch another.

    Where the system can fork, processes come from a server that has imported torch and anomalib once.

    Args:
        processes: How many jobs run at a time; they share the CPU's threads evenly.
        retries: How often a job is started again whose process died (killed, out of memory, crashed in C).

    Raises:
        ValueError: If ``processes`` is not positive or ``retries`` is negative.
    """

    def __init__(self, processes: int = 1, retries: int = 1) -> None:
        super().__init__(retries)
        if processes < 1:
            msg = f"Expected processes >= 1, got {processes}."
            raise ValueError(msg)
        self.places = processes
        self.threads = max(1, (os.cpu_count() or 1) // processes) if processes > 1 else None
        methods = multiprocessing.get_all_start_methods()
        self._method = "forkserver" if "forkserver" in methods else "spawn"
        if self._method == "forkserver":
            multiprocessing.get_context("forkserver").set_forkserver_preload([process_main.__module__])

    def _start(self, job: Job, root: Path) -> "_Worker":
        return _Worker(job, root, self.threads, self._method)

    def _wait(self, tasks: Collection["_Worker"]) -> list[tuple["_Worker", Ending]]:
        limits = [seconds for worker in tasks if (seconds := worker.seconds_left()) is not None]
        wait([worker.process.sentinel for worker in tasks], min(limits, default=None))
        endings = [(worker, worker.ending()) for worker in tasks]
        return [(worker, ending) for worker, ending in endings if ending is not None]

    def _close(self, tasks: Collection["_Worker"]) -> None:
        for worker in tasks:
            worker.process.kill()
            worker.process.join()


class RayExecutor(Executor):
    """Runs jobs on a Ray cluster whose nodes have this package installed and see the folder of the sweep.

    Args:
        address: Address of the cluster, ``auto`` for the one this machine belongs to; ``None`` starts one here.
        cpus: CPU cores of a job.
        gpus: GPUs of a job; fractions share one.
        retries: How often a job is started again whose process, worker or node died.

    Raises:
        ImportError: If Ray is not installed.
    """

    def __init__(self, address: str | None = None, cpus: float = 1, gpus: float = 0, retries: int = 1) -> None:
        super().__init__(retries)
        try:
            import ray
        except ImportError:
            msg = "The executor `ray` needs Ray; `pip install 'anomalib-lamp[ray]'`"
            raise ImportError(msg) from None
        self._ray = ray
        self.address = address
        self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0, max_calls=0)(_work_in_a_process)

    def run(self, jobs: Sequence[Job], root: Path) -> Iterator[Event]:
        """Yield what happens to the jobs as it happens."""
        dashboard = False if not self.address else None
        self._ray.init(address=self.address, log_to_driver=False, include_dashboard=dashboard)
        yield from super().run(jobs, root)

    def _start(self, job: Job, root: Path) -> Any:
        return self._task.remote(job, root)

    def _wait(self, tasks: Collection[Any]) -> list[tuple[Any, Ending]]:
        return [(task, self._ending(task)) for task in self._ray.wait(list(tasks))[0]]

    def _ending(self, task: Any) -> Ending:
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            return Ending("died", f"The Ray worker died: {shorten(' '.join(str(error).split()))}")

    def _close(self, tasks: Collection[Any]) -> None:
        del tasks  # they end with the connection
        self._ray.shutdown()


class _Worker:
    """A process that works on a job."""

    def __init__(self, job: Job, root: Path, threads: int | None, method: str) -> None:
        context: Any = multiprocessing.get_context(method)
        self._receiver, sender = context.Pipe(duplex=False)
        arguments = (job, root, threads, multiprocessing.get_start_method(), sender)
        self.process = context.Process(target=process_main, args=arguments)
        self.process.start()
        sender.close()
        self._timeout = job.timeout
        self._begun = time.monotonic()

    def seconds_left(self) -> float | None:
        """Return how long the job may still take."""
        return None if self._timeout is None else max(0.0, self._begun + self._timeout - time.monotonic())

    def ending(self) -> Ending | None:
        """Return how the process ended, or ``None`` while it runs; one whose time is over is killed."""
        late = self.process.is_alive()
        if late and self.seconds_left() != 0:
            return None
        self.process.kill()
        self.process.join()
        with suppress(EOFError):
            if self._receiver.poll():
                return self._receiver.recv()
        if late:
            return Ending("late", f"Stopped after {self._timeout:g} seconds, the job's timeout.")
        return Ending("died", _death(self.process.exitcode))


def _work_in_a_process(job: Job, root: Path) -> Ending:
    """Work on a job in a process of its own, which sees the environment variables of this one, and wait for its end."""
    worker = _Worker(job, root, None, "spawn")
    while (ending := worker.ending()) is None:
        wait([worker.process.sentinel], worker.seconds_left())
    return ending


def _settle(job: Job, folder: ResultFolder, ending: Ending) -> Event:
    """Return how a job ended; if its worker left no result, first write that it failed and why."""
    if ending.outcome in ("finished", "failed"):
        return Event(job, ending.outcome)
    try:
        with FileLock(folder.lock_path(job.id), timeout=10):
            record = folder.read(job.id)
            if record is not None and record.status == "finished":
                return Event(job, "finished")
            error = "\n".join(filter(None, [tail_of_file(folder.work_path(job.id) / "log.txt"), ending.reason]))
            attempt, started = (record.attempt, record.origin.started) if record else (1, None)
            folder.write(record_without_result(job, "failed", error, attempt, started))
    except (OSError, Timeout):  # the reason is all that can be told
        return Event(job, "failed", ending.reason)
    return Event(job, "failed")


def _death(exit_code: int | None) -> str:
    """Return how a process ended that left no result."""
    if exit_code is None or exit_code >= 0:
        return f"The process ended without a result, with exit status {exit_code}."
    killed = " Was the memory exhausted?" if exit_code == -signal.SIGKILL else ""
    return f"The process died by {signal.Signals(-exit_code).name}.{killed}"
