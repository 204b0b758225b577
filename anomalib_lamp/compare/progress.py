"""What is seen of a sweep while it runs: jobs done, running, failed, time left."""

import time
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .executors import Event
from .job import Job
from .records import Metrics, Record, ResultFolder

RECENT_JOBS_SHOWN = 8


class Progress:
    """Shows what happens to the jobs: a live table on a terminal, a line for each ended job elsewhere.

    Args:
        pending: Jobs that will run.
        total: Number of all jobs, with those that had results before.
        folder: Where the records appear.
        quiet: Show failures only.
        console: Where to show it; standard output if not given.
    """

    def __init__(
        self, pending: Sequence[Job], total: int, folder: ResultFolder, quiet: bool, console: Console | None = None
    ) -> None:
        self.console = console or Console()
        self.folder = folder
        self.quiet = quiet
        self.total = total
        self.pending = len(pending)
        self.finished = 0
        self.failed = 0
        self.running: dict[str, tuple[Job, float]] = {}
        self.recent: deque[Record] = deque(maxlen=RECENT_JOBS_SHOWN)
        self.begun = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> "Progress":
        if self.console.is_terminal and not self.quiet:
            self._live = Live(get_renderable=self.render, console=self.console, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, event: Event) -> None:
        """Take note of what happened to a job, and tell it."""
        if event.state == "started":
            self.running[event.job.id] = event.job, time.monotonic()
            return
        self.running.pop(event.job.id, None)
        if event.state == "retried":
            self._line(f"retried   {event.job}: {event.note}")
            return
        record = self.folder.read(event.job.id)
        self.finished += event.state == "finished"
        self.failed += event.state == "failed"
        if record is not None:
            self.recent.append(record)
        if self._live is None and (event.state == "failed" or not self.quiet):
            self._line(f"{self.counts()}  {event.state} {event.job}  {event.note or _outcome(record)}")

    def counts(self) -> str:
        """Return how far the sweep is, for people."""
        before = self.total - self.pending
        return f"[{before + self.finished + self.failed}/{self.total}]"

    def seconds_left(self) -> float | None:
        """Return how long the rest will take at the pace so far, or ``None`` before the first job has ended."""
        ended = self.finished + self.failed
        return (time.monotonic() - self.begun) / ended * (self.pending - ended) if ended else None

    def render(self) -> Group:
        """Return the live table."""
        left = self.seconds_left()
        head = f"{self.counts()} jobs done, {len(self.running)} running, {self.failed} failed"
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("job", "state", "time", "image AUROC", "pixel AUROC"):
            table.add_column(column, justify="left" if column in ("job", "state") else "right")
        for record in self.recent:
            table.add_row(*map(Text, _row(record)))
        for job, since in self.running.values():
            table.add_row(Text(str(job)), "running", _duration(time.monotonic() - since), "", "")
        return Group(Text(head if left is None else f"{head}, {_duration(left)} left"), table)

    def _line(self, text: str) -> None:
        """Print a line as it is; above the table if there is one."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _row(record: Record) -> list[str]:
    """Return the cells of an ended job."""
    metrics = record.metrics or Metrics()
    duration = _duration((record.origin.ended - record.origin.started).total_seconds())
    name = f"{record.model} on {record.data}, seed {record.seed}"
    return [name, record.status, duration, _figure(metrics.image_AUROC), _figure(metrics.pixel_AUROC)]


def _outcome(record: Record | None) -> str:
    """Return the result of an ended job in a few words."""
    if record is None or record.metrics is None:
        return (record.error if record and record.error else "no record").splitlines()[-1]
    metrics = record.metrics
    return f"image AUROC {_figure(metrics.image_AUROC)}, pixel AUROC {_figure(metrics.pixel_AUROC)}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
