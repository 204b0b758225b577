"""A sweep keeps every result, continues where it stopped, and survives what happens to its processes."""

import contextlib
import io
import math
import multiprocessing
import os
import shutil
import signal
import time
from dataclasses import replace

import pytest
import torch
import yaml
from anomalib.engine import Engine
from helpers import REPOSITORY, SMALL_PARTS
from lightning import seed_everything
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from sklearn.metrics import roc_auc_score

from anomalib_lamp.compare.classes import instantiate
from anomalib_lamp.compare.executors import Event, LocalExecutor, RayExecutor
from anomalib_lamp.compare.job import Job, prepare
from anomalib_lamp.compare.progress import Progress
from anomalib_lamp.compare.records import ResultFolder, finished, read_records
from anomalib_lamp.compare.runner import compare
from anomalib_lamp.compare.spec import SpecError, read_spec
from anomalib_lamp.compare.worker import work_on
from anomalib_lamp.report import report

BACKBONE = {"backbone": "resnet18", "pre_trained": False}
LAMP_AE = {"class_path": "LampAE", "init_args": {"max_steps": 2, "width": 4, "image_size": 64}}


def write_spec(tmp_path, parts_root, models, **changes):
    """Write the spec of a sweep over the small drawn parts."""
    init_args = {**SMALL_PARTS, "root": str(parts_root), "num_workers": 0, "val_split_ratio": 0.5}
    spec = {
        "data": {"parts": {"class_path": "SyntheticParts", "init_args": init_args}},
        "models": models,
        "trainer": {"accelerator": "cpu"},
        "measure": {"latency_batch_sizes": [1], "latency_image_size": 64},
        **changes,
    }
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.dump(spec, sort_keys=False))
    return path


def misbehaving(how, **arguments):
    """Return the entry of a model that does something bad."""
    return {"class_path": "helpers.Misbehaves", "init_args": {"how": how, **arguments}}


def exit_code(*args, **kwargs):
    """Return the exit code of `anomalib-lamp compare`."""
    try:
        compare(*args, **kwargs)
    except SystemExit as error:
        return error.code
    return 0


@pytest.fixture(scope="module")
def sweep(parts_root, tmp_path_factory):
    """Folder of a sweep of three jobs of which one fails, and its exit code."""
    folder = tmp_path_factory.mktemp("sweep")
    models = {
        "lamp_ae": LAMP_AE,
        "padim": {"class_path": "Padim", "init_args": {"pre_trained": False, "layers": ["layer1"], "n_features": 16}},
        "broken": {"class_path": "LampAE", "init_args": {"architecture": "perceptron"}},
    }
    spec = write_spec(folder, parts_root, models)
    return folder, exit_code(spec, out=folder / "out", processes=2)


def record_of(folder, model):
    return next(record for record in read_records(folder / "out") if record.model == model)


def test_every_job_leaves_a_record(sweep):
    folder, code = sweep
    records = read_records(folder / "out")
    assert code == 1
    assert {record.model: record.status for record in records} == {
        "lamp_ae": "finished",
        "padim": "finished",
        "broken": "failed",
    }
    assert read_records(folder / "out" / "results.jsonl") == records
    broken = record_of(folder, "broken")
    assert broken.error.splitlines()[-1].startswith("ValueError: Expected architecture to be one of")
    assert (folder / "out" / "work" / broken.job / "log.txt").read_text().rstrip().endswith(broken.error)


def test_a_record_has_all_figures(sweep):
    folder, _ = sweep
    record = record_of(folder, "lamp_ae")
    cost = record.cost
    assert (cost.steps, cost.latency[0].batch_size) == (2, 1)
    assert cost.latency[0].runs >= 5
    assert cost.latency[0].iqr_ms > 0
    assert 0 < cost.latency[0].median_ms < cost.total_seconds * 1000
    assert cost.train_seconds + cost.test_seconds < cost.total_seconds
    assert cost.parameters == sum(p.numel() for p in instantiate(record.config["model"]).parameters())
    assert 0.5 < cost.exported_mib / (cost.parameters * 4 / 2**20) < 5
    assert 100 < cost.peak_rss_mib < 24_000
    assert record.origin.versions.keys() >= {"anomalib", "torch"}
    assert None not in record.metrics.model_dump().values()


def test_the_record_of_an_amplified_model_tells_the_multipliers(parts_root, tmp_path):
    resize = {"class_path": "torchvision.transforms.v2.Resize", "init_args": {"size": [64, 64]}}
    pre_processor = {"class_path": "anomalib.pre_processing.PreProcessor", "init_args": {"transform": resize}}
    plain = {"class_path": "ReverseDistillation", "init_args": {**BACKBONE, "pre_processor": pre_processor}}
    models = {"plain": plain, "amplified": {**plain, "amplify": True}}
    measure = {"latency_batch_sizes": [], "export": False}
    trainer = {"accelerator": "cpu", "max_epochs": 1}
    for job in read_spec(write_spec(tmp_path, parts_root, models, measure=measure, trainer=trainer)):
        assert work_on(job, tmp_path / "out") == "finished"
    plain, amplified = record_of(tmp_path, "plain"), record_of(tmp_path, "amplified")
    assert plain.multipliers is None
    assert 1 <= amplified.multipliers.median <= amplified.multipliers.p99 <= 10
    assert plain.images != amplified.images


def test_metrics_are_those_of_the_scores(sweep):
    folder, _ = sweep
    for model in ("lamp_ae", "padim"):
        record = record_of(folder, model)
        truth, scores = zip(*((image.anomalous, image.score) for image in record.images), strict=True)
        assert len(truth) == len({image.path for image in record.images})
        assert record.metrics.image_AUROC == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)


def test_a_training_that_ends_within_an_epoch_has_thresholds_of_its_end(tmp_path, parts_root):
    init_args = {
        **SMALL_PARTS,
        "root": str(parts_root),
        "num_workers": 0,
        "train_batch_size": 2,
        "val_split_ratio": 0.5,
    }
    arguments = {"backbone": "resnet18", "pre_trained": False}
    models = {"rd": {"class_path": "ReverseDistillation", "init_args": arguments, "trainer": {"max_steps": 1}}}
    data = {"parts": {"class_path": "SyntheticParts", "init_args": init_args}}
    spec = write_spec(tmp_path, parts_root, models, data=data)
    assert exit_code(spec, out=tmp_path / "out", quiet=True) == 0
    (record,) = read_records(tmp_path / "out")
    assert record.metrics.image_F1 is not None


def test_validation_anomalies_depend_on_the_seed_alone(sweep):
    """Whatever a model draws, the trainer's own set-up changes nothing."""
    folder, _ = sweep
    drawn = []
    for model in ("lamp_ae", "padim"):
        record = record_of(folder, model)
        job = Job(record.data, model, {}, record.seed, "random", record.config, 1)
        datamodule, _model = prepare(job)
        before = list(datamodule.val_data.samples.image_path)
        torch.rand(1)
        datamodule.setup(TrainerFn.FITTING)
        assert list(datamodule.val_data.samples.image_path) == before
        drawn.append([datamodule.val_data[index].image for index in range(len(before))])
    assert all(torch.equal(*pair) for pair in zip(*drawn, strict=True))


def test_metrics_agree_with_anomalibs_engine(sweep, tmp_path):
    """The same seed and arguments by hand; our model's scores are not clipped, so AUROCs agree too."""
    folder, _ = sweep
    record = record_of(folder, "lamp_ae")
    seed_everything(record.seed)
    datamodule = instantiate(record.config["data"])
    datamodule.setup()
    seed_everything(record.seed)
    config = record.config["model"]
    model = instantiate({**config, "init_args": config["init_args"] | {"evaluator": True}})
    engine = Engine(accelerator="cpu", default_root_dir=tmp_path, logger=False)
    engine.fit(model, datamodule=datamodule)
    expected = engine.test(model, datamodule=datamodule)[0]
    ours = record.metrics
    assert ours.image_AUROC == pytest.approx(expected["image_AUROC"], abs=1e-4)
    assert ours.pixel_AUROC == pytest.approx(expected["pixel_AUROC"], abs=1e-4)
    assert ours.image_F1 == pytest.approx(expected["image_F1Score"], abs=1e-4)
    assert ours.pixel_F1 == pytest.approx(expected["pixel_F1Score"], abs=1e-3)


def test_pictures_show_hits_misses_and_false_alarms(sweep):
    folder, _ = sweep
    record = record_of(folder, "lamp_ae")
    names = [path.name for path in ResultFolder(folder / "out").pictures(record.job)]
    assert names == [f"{kind}_{i}.jpg" for kind in ("false_alarm", "hit", "miss") for i in range(2)]


def test_checkpoints_are_dropped(sweep):
    folder, _ = sweep
    assert not list((folder / "out").rglob("*.ckpt"))


def test_the_same_command_runs_only_what_failed(sweep):
    folder, _ = sweep
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "out" / "jobs").glob("*.json")}
    assert exit_code(folder / "spec.yaml", out=folder / "out") == 1
    after = {path.name: path.stat().st_mtime_ns for path in (folder / "out" / "jobs").glob("*.json")}
    broken = record_of(folder, "broken")
    assert broken.attempt == 2
    assert [name for name in before if after[name] != before[name]] == [f"{broken.job}.json"]


def test_a_failure_is_forgotten_when_its_entry_is_mended(sweep, parts_root, tmp_path):
    folder, _ = sweep
    out = shutil.copytree(folder / "out", tmp_path / "out")
    models = yaml.safe_load((folder / "spec.yaml").read_text())["models"]
    models.pop("broken")
    mended = write_spec(tmp_path, parts_root, models, seeds=[0])
    assert [record.status for record in ResultFolder(out).records()].count("failed") == 1
    compare(mended, out=out, quiet=True)
    assert {record.status for record in read_records(out / "results.jsonl")} == {"finished"}


def test_a_folder_of_another_spec_is_refused(sweep, parts_root, tmp_path, capsys):
    folder, _ = sweep
    spec = write_spec(tmp_path, parts_root, {"lamp_ae": LAMP_AE}, seeds=[5])
    assert exit_code(spec, out=folder / "out") == 2
    assert "holds 2 result(s) that are not of this spec" in capsys.readouterr().err


def test_a_longer_spec_continues_the_folder(sweep, parts_root, tmp_path, capsys):
    folder, _ = sweep
    spec = yaml.safe_load((folder / "spec.yaml").read_text())
    longer = write_spec(tmp_path, parts_root, spec["models"], seeds=[0, 1])
    compare(longer, out=folder / "out", dry_run=True)
    assert capsys.readouterr().out.splitlines()[-1] == "4 of 6 jobs to run."


def test_wrong_specs_and_data_stop_before_the_first_job(parts_root, tmp_path, capsys):
    spec = write_spec(tmp_path, parts_root, {"lamp_ae": {"class_path": "LampEA"}})
    assert exit_code(spec, out=tmp_path / "out") == 2
    assert "did you mean LampAE" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    folder = {"class_path": "Folder", "init_args": {"name": "x", "root": str(tmp_path / "empty"), "normal_dir": "good"}}
    spec = write_spec(tmp_path, parts_root, {"lamp_ae": LAMP_AE}, data={"x": folder})
    assert exit_code(spec, out=tmp_path / "out") == 2
    assert "data set x: " in capsys.readouterr().err
    assert not (tmp_path / "out" / "jobs").exists()


def test_a_model_without_budget_is_refused(parts_root, tmp_path):
    spec = write_spec(tmp_path, parts_root, {"endless": {"class_path": "ReverseDistillation", "init_args": BACKBONE}})
    (job,) = read_spec(spec)
    assert work_on(job, tmp_path / "out") == "failed"
    assert "Expected a training budget for endless" in ResultFolder(tmp_path / "out").read(job.id).error


@pytest.mark.parametrize(("retries", "status", "attempt"), [(1, "finished", 2), (0, "failed", 1)])
def test_a_job_whose_process_is_killed_is_started_again(parts_root, tmp_path, retries, status, attempt):
    model = misbehaving("SIGKILL", marker=str(tmp_path / "marker"))
    jobs = read_spec(write_spec(tmp_path, parts_root, {"dies": model}))
    events = list(LocalExecutor(processes=2, retries=retries).run(jobs, tmp_path / "out"))
    (record,) = read_records(tmp_path / "out")
    assert (record.status, record.attempt) == (status, attempt)
    assert [event.state for event in events].count("retried") == retries
    if status == "failed":
        assert record.error.endswith("The process died by SIGKILL. Was the memory exhausted?")


@pytest.fixture(scope="module")
def faults(parts_root, tmp_path_factory):
    """Folder and output of a sweep of models that misbehave, started with relative paths, and where one went to."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "elsewhere").mkdir()
    models = {
        "terminated": misbehaving("SIGTERM"),
        "ended": misbehaving("exits", argument="0"),
        "busy": misbehaving("exits", argument="75"),
        "loud": misbehaving("shouts", argument="1000000"),
        "full disk": misbehaving("fills_the_disk"),
        "saved twice": misbehaving("dies_while_saving", marker=str(folder / "marker")),
        "../../wanders [red]": misbehaving("wanders", argument=str(folder / "elsewhere")),
    }
    root = os.path.relpath(parts_root, folder)
    data = {"parts": {"class_path": "SyntheticParts", "init_args": {**SMALL_PARTS, "root": root, "num_workers": 0}}}
    data["parts"]["init_args"]["val_split_ratio"] = 0.5
    write_spec(folder, parts_root, models, data=data)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.chdir(folder)
        assert exit_code("spec.yaml", out="out", processes=2) == 1
    return folder, printed.getvalue()


@pytest.mark.parametrize(("model", "status"), [("terminated", 0), ("ended", 0), ("busy", 75)])
def test_a_job_without_a_record_is_retried_and_then_failed_whatever_the_exit_status(faults, model, status):
    folder, printed = faults
    record = record_of(folder, model)
    assert (record.status, record.attempt) == ("failed", 2)
    assert record.error.splitlines()[-1] == f"The process ended without a result, with exit status {status}."
    assert printed.count(f"retried   {model} on parts, seed 0") == 1
    assert "2 of 7 jobs finished, 5 failed." in printed


def test_every_started_job_is_in_the_report(faults, tmp_path):
    folder, _ = faults
    text = report(folder / "out", out=tmp_path).with_suffix(".md").read_text()
    failed = text.partition("## Failed jobs")[2].partition("## ")[0]
    for model in ("terminated", "ended", "busy", "loud", "full disk"):
        assert failed.count(f"| {model} |") == 1
    assert "5 of 7 jobs failed or have no result" in failed


def test_a_job_that_changes_its_folder_reaches_no_other(faults):
    folder, _ = faults
    record = record_of(folder, "../../wanders [red]")
    assert record.status == "finished"
    assert "gone to" in (folder / "out" / "work" / record.job / "log.txt").read_text()
    assert list((folder / "elsewhere").iterdir()) == []
    assert {path.name for path in folder.iterdir()} == {"out", "spec.yaml", "elsewhere", "marker"}
    assert record.config["data"]["init_args"]["root"].startswith("..")  # the job is the same on another machine


def test_an_error_of_one_long_line_is_cut(faults):
    record = record_of(faults[0], "loud")
    assert record.error.endswith(" more characters)")
    assert len(record.error) < 15 * 550


def test_a_result_that_cannot_be_saved_is_a_failure_with_its_reason(faults):
    record = record_of(faults[0], "full disk")
    assert record.status == "failed"
    assert "The result cannot be saved: [Errno 27] File too large" in record.error.splitlines()[-1]


def test_a_job_killed_while_it_saves_leaves_nothing_half_written(faults):
    folder, _ = faults
    record = record_of(folder, "saved twice")
    assert (record.status, record.attempt) == ("finished", 2)
    assert list((folder / "out").rglob("*.part")) == []


def test_a_job_that_hangs_is_stopped_after_its_timeout_and_the_rest_goes_on(parts_root, tmp_path):
    spec = write_spec(tmp_path, parts_root, {"hangs": misbehaving("hangs"), "lamp_ae": LAMP_AE})
    hangs, healthy = read_spec(spec)
    jobs = [replace(hangs, timeout=20), healthy]  # a healthy job may take longer on a busy machine
    events = [(event.job.model, event.state) for event in LocalExecutor(retries=5).run(jobs, tmp_path / "out")]
    assert events == [("hangs", "started"), ("hangs", "failed"), ("lamp_ae", "started"), ("lamp_ae", "finished")]
    record = record_of(tmp_path, "hangs")
    assert (record.status, record.attempt) == ("failed", 1)
    assert record.error.splitlines()[-2:] == ["about to hang", "Stopped after 20 seconds, the job's timeout."]


def test_the_timeout_of_the_command_wins_over_that_of_the_spec(parts_root, tmp_path, monkeypatch):
    spec = write_spec(tmp_path, parts_root, {"lamp_ae": LAMP_AE}, job_timeout=3600)
    given = []
    monkeypatch.setattr(LocalExecutor, "run", lambda _self, jobs, _root: given.extend(jobs) or iter(()))
    for arguments in ({}, {"job_timeout": 2.5}):
        assert exit_code(spec, out=tmp_path / "out", **arguments) == 1  # nothing was run
    assert [job.timeout for job in given] == [3600, 2.5]
    assert given[0].id == given[1].id


def test_a_job_whose_runner_was_killed_is_told_as_started(parts_root, tmp_path):
    models = {"hangs": misbehaving("hangs", marker=str(tmp_path / "marker")), "lamp_ae": LAMP_AE}
    spec = write_spec(tmp_path, parts_root, models)
    runner = multiprocessing.get_context("forkserver").Process(
        target=compare, kwargs={"spec": spec, "out": tmp_path / "out", "quiet": True}
    )
    runner.start()
    folder = ResultFolder(tmp_path / "out")
    while not (tmp_path / "marker").exists():
        assert runner.is_alive()
        time.sleep(0.1)
    runner.kill()
    runner.join()
    (record,) = folder.records()
    assert (record.model, record.status, record.attempt) == ("hangs", "started", 1)
    assert "No result: the job is still running, or its process was stopped." in report(folder.root).read_text()
    assert exit_code(spec, out=folder.root) == 0
    assert {record.model: record.attempt for record in folder.records()} == {"hangs": 2, "lamp_ae": 1}


def test_a_full_disk_is_told_in_a_line_and_the_rest_goes_on(parts_root, tmp_path, monkeypatch, capsys):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    spec = write_spec(tmp_path, parts_root, {"ended": misbehaving("exits", argument="0"), "lamp_ae": LAMP_AE})
    monkeypatch.setattr(ResultFolder, "write", full_disk)  # of this process, the runner; workers write what they can
    monkeypatch.setattr(ResultFolder, "collect", full_disk)
    assert exit_code(spec, out=tmp_path / "out", retries=0) == 1
    printed = capsys.readouterr()
    assert "failed ended on parts, seed 0  The process ended without a result, with exit status 0." in printed.out
    assert {record.model: record.status for record in read_records(tmp_path / "out")} == {
        "ended": "started",
        "lamp_ae": "finished",
    }
    (line,) = printed.err.splitlines()[-1:]
    assert line.startswith("1 of 2 jobs finished, 1 failed. The records in")
    assert line.endswith("cannot be collected: [Errno 28] No space left on device")


@pytest.mark.parametrize("place", ["out", "out/jobs", "out/work", "out/spec.yaml.part"])
def test_something_else_in_the_place_of_the_results_is_told_in_a_line(parts_root, tmp_path, capsys, place):
    spec = write_spec(tmp_path, parts_root, {"lamp_ae": LAMP_AE})
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if path.suffix else path.write_text("mine")
    assert exit_code(spec, out=tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("The folder for the results cannot be used: [Errno ")
    assert str(path) in line
    assert line.endswith("Choose another with --out.")
    assert path.is_dir() or path.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"processes": 0}, "Expected processes >= 1, got 0."),
        ({"retries": -1}, "Expected retries >= 0, got -1."),
        ({"job_timeout": -1.0}, "Expected job_timeout to be a positive number of seconds, got -1.0."),
        ({"job_timeout": math.nan}, "Expected job_timeout to be a positive number of seconds, got nan."),
        ({"max_jobs": 0}, "1 jobs, 1 data sets x 1 models x 1 seeds, are more than 0"),
    ],
)
def test_a_wrong_option_is_told_in_a_line(parts_root, tmp_path, capsys, arguments, message):
    spec = write_spec(tmp_path, parts_root, {"lamp_ae": LAMP_AE})
    assert exit_code(spec, out=tmp_path / "out", **arguments) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("content", [b'{"schema_version": 1, "job":', b"\xff\xfe", b""])
def test_a_damaged_record_is_named_and_its_job_is_run_again(sweep, tmp_path, capsys, content):
    folder, _ = sweep
    out = shutil.copytree(folder / "out", tmp_path / "out", symlinks=True)
    broken, whole = record_of(folder, "padim"), record_of(folder, "lamp_ae")
    path = out / "jobs" / f"{broken.job}.json"
    path.write_bytes(content)
    text = report(out, out=tmp_path / "report").with_suffix(".md").read_text()
    assert text.count(str(path)) == 1
    assert "lamp_ae" in text
    compare(folder / "spec.yaml", out=out, dry_run=True)
    printed = capsys.readouterr()
    assert [line.startswith(f"Left out {path}") for line in printed.err.splitlines()] == [True]
    assert printed.out.splitlines()[-1] == "2 of 3 jobs to run."  # the one that failed and this one
    assert work_on(next(job for job in read_spec(folder / "spec.yaml") if job.id == broken.job), out) == "finished"
    assert {record.model for record in ResultFolder(out).records()} >= {"padim", "lamp_ae"}
    assert ResultFolder(out).read(whole.job) == whole


def test_a_folder_of_nothing_but_damage_is_told(tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / f"{'0' * 12}.json").write_text("torn")
    with pytest.raises(FileNotFoundError, match=f"Left out .*{'0' * 12}.json"):
        report(tmp_path)


def test_data_loaders_start_their_workers_as_outside(parts_root, tmp_path):
    model = {"class_path": "helpers.NotesStartMethod", "init_args": {"note": str(tmp_path / "note")}}
    list(
        LocalExecutor(processes=2).run(read_spec(write_spec(tmp_path, parts_root, {"notes": model})), tmp_path / "out")
    )
    assert (tmp_path / "note").read_text() == multiprocessing.get_start_method()


@pytest.mark.slow
def test_ray_runs_the_jobs_and_starts_one_again_whose_worker_is_killed(parts_root, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed; pip install 'anomalib-lamp[ray]'")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests"))  # of Ray's workers
    dies = misbehaving("SIGKILL", marker=str(tmp_path / "marker"))
    broken = {"class_path": "LampAE", "init_args": {"architecture": "perceptron"}}
    jobs = read_spec(
        write_spec(
            tmp_path, parts_root, {"dies": dies, "broken": broken, "hangs": misbehaving("hangs")}, job_timeout=60
        )
    )
    events = list(RayExecutor(retries=1).run(jobs, tmp_path / "out"))
    assert sorted((event.job.model, event.state) for event in events) == [
        ("broken", "failed"),
        ("broken", "started"),
        ("dies", "finished"),
        ("dies", "retried"),
        ("dies", "started"),
        ("dies", "started"),
        ("hangs", "failed"),
        ("hangs", "started"),
    ]
    records = {record.model: record for record in read_records(tmp_path / "out")}
    assert records["dies"].attempt == 2
    assert records["broken"].attempt == 1
    assert "Expected architecture" in records["broken"].error
    assert records["hangs"].error.splitlines()[-2:] == [
        "about to hang",
        "Stopped after 60 seconds, the job's timeout.",
    ]


def test_two_runners_do_no_job_twice(parts_root, tmp_path):
    spec = write_spec(tmp_path, parts_root, {"lamp_ae": LAMP_AE}, seeds=[0, 1, 2])
    context = multiprocessing.get_context("forkserver")
    arguments = {"spec": spec, "out": tmp_path / "out", "processes": 2, "quiet": True}
    runners = [context.Process(target=compare, kwargs=arguments) for _ in range(2)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert [runner.exitcode for runner in runners] == [0, 0]
    assert [record.attempt for record in read_records(tmp_path / "out")] == [1, 1, 1]


def test_a_killed_runner_takes_its_workers_with_it_and_loses_nothing(parts_root, tmp_path):
    spec = write_spec(tmp_path, parts_root, {"lamp_ae": LAMP_AE}, seeds=list(range(4)))
    context = multiprocessing.get_context("forkserver")
    runner = context.Process(target=compare, kwargs={"spec": spec, "out": tmp_path / "out", "quiet": True})
    runner.start()
    folder = ResultFolder(tmp_path / "out")
    while not finished(folder.records()):
        assert runner.is_alive()
        time.sleep(0.1)
    os.kill(runner.pid, signal.SIGKILL)
    runner.join()
    time.sleep(1)
    kept = {record.job: record for record in finished(folder.records())}
    assert 1 <= len(kept) < 4
    assert exit_code(spec, out=folder.root, quiet=True) == 0
    records = folder.records()
    assert len(records) == 4
    assert all(record == kept.get(record.job, record) for record in records)


def test_the_spec_is_kept_beside_the_results(sweep):
    folder, _ = sweep
    assert (folder / "out" / "spec.yaml").read_text() == (folder / "spec.yaml").read_text()


def test_executors_say_what_they_need(monkeypatch):
    with pytest.raises(ValueError, match="Expected processes >= 1, got 0"):
        LocalExecutor(processes=0)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'anomalib-lamp\[ray\]'"):
        RayExecutor()


def test_the_live_table_counts(sweep):
    folder, _ = sweep
    jobs = read_spec(folder / "spec.yaml")
    console = Console(file=io.StringIO(), width=160)
    progress = Progress(jobs, len(jobs) + 5, ResultFolder(folder / "out"), quiet=False, console=console)
    for job, state in zip(jobs, ("finished", "finished", "failed"), strict=True):
        progress.show(Event(job, "started"))
        if state == "finished":
            progress.show(Event(job, state))
    console.print(progress.render())
    text = console.file.getvalue()
    assert "[7/8] jobs done, 1 running, 0 failed, 0:00:00 left" in text
    assert "running" in text.splitlines()[-1]
    progress.show(Event(jobs[-1], "failed"))
    assert math.isclose(progress.seconds_left(), 0)
    assert "ValueError" in console.file.getvalue().splitlines()[-1]


def test_problems_are_one_error(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("data: {}\nmodels: {}\n")
    with pytest.raises(SpecError) as error:
        read_spec(path)
    assert len(error.value.problems) == 2
