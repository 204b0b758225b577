"""`anomalib-lamp compare`: run the jobs of a sweep that have no result yet, and save each result at once."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NoReturn

from anomalib.data import AnomalibDataModule

from .classes import instantiate
from .executors import Executor, LocalExecutor, RayExecutor
from .job import Job
from .progress import Progress
from .records import ResultFolder, finished, shorten, write_durably
from .spec import MAX_JOBS, Problem, SpecError, check_timeout, read_spec


def compare(
    spec: Path | str,
    out: Path | None = None,
    executor: Literal["local", "ray"] = "local",
    processes: int = 1,
    address: str | None = None,
    cpus: float = 1,
    gpus: float = 0,
    retries: int = 1,
    job_timeout: float | None = None,
    max_jobs: int = MAX_JOBS,
    keep_checkpoints: bool = False,
    quiet: bool = False,
    dry_run: bool = False,
) -> None:
    """Compare models on data sets: run every job of a spec that has no result yet.

    The same command continues a sweep that was stopped or killed. Jobs that failed are tried again. Several runners may
    share a folder. A job that was half-way starts anew: a continued training would not be the same as an unbroken one.

    Args:
        spec: YAML file with data, models and seeds.
        out: Folder for the results; results/compare/NAME-OF-SPEC if not given.
        executor: "local" for processes of this machine, "ray" for a Ray cluster.
        processes: For local: how many jobs run at a time.
        address: For ray: address of the cluster, "auto" for this machine's; one is started here if not given.
        cpus: For ray: CPU cores of a job.
        gpus: For ray: GPUs of a job.
        retries: How often a job is started again whose process died.
        job_timeout: Seconds after which a job is stopped and has failed; wins over the spec's.
        max_jobs: A spec with more jobs is refused.
        keep_checkpoints: Keep the trained models, in work/JOB below the folder.
        quiet: Print failures and the closing line only, for logs and CI.
        dry_run: Print the jobs that would run, and run nothing.

    Raises:
        SystemExit: With 1 if a job failed, with 2 if the spec is wrong or the folder for the results cannot be used,
            with 130 after Ctrl-C.
    """
    spec = Path(spec)
    folder = ResultFolder(out or Path("results/compare") / spec.stem)
    try:
        chosen: Executor = (
            RayExecutor(address, cpus, gpus, retries) if executor == "ray" else LocalExecutor(processes, retries)
        )
        jobs = read_spec(spec, max_jobs)
        if job_timeout is not None:
            jobs = [replace(job, timeout=check_timeout(job_timeout)) for job in jobs]
    except (OSError, ImportError, ValueError) as error:
        _stop(str(error), status=2)
    try:
        pending = _pending(jobs, folder, spec)
        if not dry_run:
            folder.make()
            folder.drop_unfinished({job.id for job in jobs})
            with folder.lock():
                write_durably(folder.root / "spec.yaml", spec.read_text(encoding="utf-8"))
    except SpecError as error:
        _stop(str(error), status=2)
    except OSError as error:
        _stop(f"The folder for the results cannot be used: {error}. Choose another with --out.", status=2)
    if dry_run:
        print("\n".join([*map(str, pending), f"{len(pending)} of {len(jobs)} jobs to run."]))
        return
    _run(pending, len(jobs), folder, chosen, keep_checkpoints, quiet)
    _conclude(jobs, folder)


def _conclude(jobs: Sequence[Job], folder: ResultFolder) -> None:
    """Collect the records, say how many jobs finished, and exit with 1 if one did not."""
    records = folder.records()
    done = {record.job for record in finished(records)} & {job.id for job in jobs}
    counts = f"{len(done)} of {len(jobs)} jobs finished, {len(jobs) - len(done)} failed."
    try:
        print(f"{counts} Results: {folder.collect(records)}")
    except OSError as error:
        _stop(f"{counts} The records in {folder.root / 'jobs'} cannot be collected: {error}", status=1)
    print(f"Tables and pictures: anomalib-lamp report {folder.root}")
    if len(done) < len(jobs):
        sys.exit(1)


def _stop(message: str, status: int) -> NoReturn:
    """End the command with a message."""
    print(message, file=sys.stderr)
    sys.exit(status)


def _pending(jobs: Sequence[Job], folder: ResultFolder, spec: Path) -> list[Job]:
    """Return the jobs without a result, after making sure that the folder and the data are what they should be."""
    damage: list[str] = []
    records = {record.job: record for record in folder.records(damage)}
    if damage:
        print("\n".join(damage), file=sys.stderr)
    foreign = {job for job, record in records.items() if record.status == "finished"} - {job.id for job in jobs}
    if foreign:
        some = records[min(foreign)]
        text = (
            f"{folder.root} holds {len(foreign)} result(s) that are not of this spec, one is {some.model} on "
            f"{some.data}, seed {some.seed}; choose another folder with --out, or remove them"
        )
        raise SpecError(spec, [Problem(1, text)])
    pending = [job for job in jobs if job.id not in records or records[job.id].status != "finished"]
    problems = _prepare_data(pending, folder)
    if problems:
        raise SpecError(spec, problems)
    return pending


def _prepare_data(jobs: Sequence[Job], folder: ResultFolder) -> list[Problem]:
    """Let every data set fetch or draw itself once, before jobs do it at the same time; return what went wrong."""
    problems = []
    folder.root.mkdir(parents=True, exist_ok=True)
    with folder.lock():
        for job in {job.data: job for job in jobs}.values():
            fault = _data_fault(job)
            if fault:
                problems.append(Problem(job.line, f"data set {job.data}: {fault}"))
    return problems


def _data_fault(job: Job) -> str | None:
    """Find the images of a data set, without drawing its validation anomalies; return what went wrong."""
    config = job.data_config
    without_validation = {"val_split_mode": "none"} if "val_split_mode" in config["init_args"] else {}
    try:
        datamodule: AnomalibDataModule = instantiate(config | {"init_args": config["init_args"] | without_validation})
        datamodule.prepare_data()
        datamodule.setup()
    except Exception as error:
        return shorten(" ".join(f"{type(error).__name__}: {error}".split()))
    return None


def _run(
    pending: Sequence[Job], total: int, folder: ResultFolder, executor: Executor, keep_checkpoints: bool, quiet: bool
) -> None:
    """Run the jobs and show what happens to them."""
    try:
        with Progress(pending, total, folder, quiet) as progress:
            for event in executor.run(pending, folder.root):
                progress.show(event)
                if event.state == "finished" and not keep_checkpoints:
                    folder.drop_checkpoints(event.job.id)
    except KeyboardInterrupt:
        print("Stopped; finished jobs are kept, the same command continues.", file=sys.stderr)
        sys.exit(130)
