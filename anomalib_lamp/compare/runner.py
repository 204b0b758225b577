"""`anomalib-lamp compare`: run the jobs of a sweep that have no result yet, and save each result at once."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from anomalib.data import AnomalibDataModule
from filelock import FileLock

from .classes import instantiate
from .executors import Executor, LocalExecutor, RayExecutor
from .job import Job
from .progress import Progress
from .records import ResultFolder, write_durably
from .spec import Problem, SpecError, read_spec


def compare(
    spec: Path | str,
    out: Path | None = None,
    executor: Literal["local", "ray"] = "local",
    processes: int = 1,
    address: str | None = None,
    cpus: float = 1,
    gpus: float = 0,
    retries: int = 1,
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
        keep_checkpoints: Keep the trained models, in work/JOB below the folder.
        quiet: Print failures and the closing line only, for logs and CI.
        dry_run: Print the jobs that would run, and run nothing.

    Raises:
        SystemExit: With 1 if a job failed, with 2 if the spec is wrong, with 130 after Ctrl-C.
    """
    spec = Path(spec)
    try:
        jobs = read_spec(spec)
        folder = ResultFolder(out or Path("results/compare") / spec.stem)
        pending = _pending(jobs, folder, spec)
    except (FileNotFoundError, SpecError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if dry_run:
        print("\n".join([*map(str, pending), f"{len(pending)} of {len(jobs)} jobs to run."]))
        return
    folder.drop_failures({job.id for job in jobs})
    write_durably(folder.root / "spec.yaml", spec.read_text(encoding="utf-8"))
    chosen: Executor = (
        RayExecutor(address, cpus, gpus, retries) if executor == "ray" else LocalExecutor(processes, retries)
    )
    failed = _run(pending, len(jobs), folder, chosen, keep_checkpoints, quiet)
    results = folder.collect()
    print(f"{len(jobs) - failed} of {len(jobs)} jobs finished, {failed} failed. Results: {results}")
    print(f"Tables and pictures: anomalib-lamp report {folder.root}")
    if failed:
        sys.exit(1)


def _pending(jobs: Sequence[Job], folder: ResultFolder, spec: Path) -> list[Job]:
    """Return the jobs without a result, after making sure that the folder and the data are what they should be."""
    records = {record.job: record for record in folder.records()}
    foreign = {job for job, record in records.items() if record.status == "finished"} - {job.id for job in jobs}
    if foreign:
        some = records[min(foreign)]
        text = (
            f"{folder.root} holds {len(foreign)} result(s) that are not of this spec, one is {some.model} on "
            f"{some.data}, seed {some.seed}; choose another folder with --out, or remove them"
        )
        raise SpecError(spec, [Problem(1, text)])
    pending = [job for job in jobs if job.id not in records or records[job.id].status == "failed"]
    problems = _prepare_data(pending, folder)
    if problems:
        raise SpecError(spec, problems)
    return pending


def _prepare_data(jobs: Sequence[Job], folder: ResultFolder) -> list[Problem]:
    """Let every data set fetch or draw itself once, before jobs do it at the same time; return what went wrong."""
    problems = []
    with FileLock(folder.root / "data.lock"):
        for job in {job.data: job for job in jobs}.values():
            fault = _data_fault(job)
            if fault:
                problems.append(Problem(job.line, f"data set {job.data}: {fault}"))
    return problems


def _data_fault(job: Job) -> str | None:
    """Find the images of a data set, without drawing its validation anomalies; return what went wrong."""
    config = job.config["data"]
    without_validation = {"val_split_mode": "none"} if "val_split_mode" in config["init_args"] else {}
    try:
        datamodule: AnomalibDataModule = instantiate(config | {"init_args": config["init_args"] | without_validation})
        datamodule.prepare_data()
        datamodule.setup()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _run(
    pending: Sequence[Job], total: int, folder: ResultFolder, executor: Executor, keep_checkpoints: bool, quiet: bool
) -> int:
    """Run the jobs and return how many failed."""
    failed = 0
    try:
        with Progress(pending, total, folder, quiet) as progress:
            for event in executor.run(pending, folder.root):
                progress.show(event)
                failed += event.state == "failed"
                if event.state == "finished" and not keep_checkpoints:
                    folder.drop_checkpoints(event.job.id)
    except KeyboardInterrupt:
        print("Stopped; finished jobs are kept, the same command continues.", file=sys.stderr)
        sys.exit(130)
    return failed
