"""A spec becomes the right jobs, and everything wrong with it is told at once, with lines, before anything runs."""

import time

import pytest
import yaml
from anomalib.models import Padim
from jsonargparse import ArgumentParser

from anomalib_lamp import LampAE, SyntheticParts
from anomalib_lamp.compare.classes import instantiate
from anomalib_lamp.compare.spec import SpecError, read_spec

SPEC = """\
data:
  parts:
    class_path: SyntheticParts
    init_args: {num_workers: 0}
    grid: {category: [washer, fabric]}
models:
  lamp_ae:
    class_path: LampAE
    init_args:
      max_steps: 7
    grid:
      amplify: [true, false]
      base_loss: [l1, ssim]
  padim: {class_path: anomalib.models.Padim, init_args: {pre_trained: false}, trainer: {precision: 32}}
seeds: [0, 3]
trainer: {accelerator: cpu}
"""


def write(tmp_path, text):
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    return path


def read(tmp_path, text=SPEC):
    return read_spec(write(tmp_path, text))


def replaced(old, new):
    assert old in SPEC
    return SPEC.replace(old, new)


def test_jobs_are_data_times_models_times_grids_times_seeds(tmp_path):
    jobs = read(tmp_path)
    assert len(jobs) == 2 * (2 * 2 + 1) * 2
    assert len({job.id for job in jobs}) == len(jobs)
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
    first = jobs[0]
    assert str(first) == "lamp_ae amplify=true base_loss=l1 on parts category=washer, seed 0"
    assert first.grid == {"amplify": True, "base_loss": "l1"}
    assert first.config["model"]["init_args"]["max_steps"] == 7
    padim = next(job for job in jobs if job.model == "padim")
    assert padim.config["trainer"] == {"accelerator": "cpu", "precision": 32}


def test_a_job_is_what_its_spec_says(tmp_path):
    job = read(tmp_path)[1]
    model, datamodule = instantiate(job.config["model"]), instantiate(job.config["data"])
    assert isinstance(model, LampAE)
    assert isinstance(datamodule, SyntheticParts)
    assert (model.loss.amplify, model.loss.base, datamodule.category) == (True, "ssim", "washer")


def test_seeds_reach_every_class_that_takes_one(tmp_path):
    for job in read(tmp_path):
        assert job.config["seed"] == job.seed == job.config["data"]["init_args"]["seed"]
        assert job.config["model"]["init_args"].get("seed", job.seed) == job.seed


def test_identity_is_the_resolved_configuration(tmp_path):
    ids = [job.id for job in read(tmp_path)]
    assert [job.id for job in read(tmp_path)] == ids
    assert [job.id for job in read(tmp_path, replaced("max_steps: 7", "max_steps: 7\n      width: 16"))] == ids
    changed = [job.id for job in read(tmp_path, replaced("max_steps: 7", "max_steps: 8"))]
    assert sum(new == old for new, old in zip(changed, ids, strict=True)) == 4  # PaDiM's


def test_a_null_that_is_not_the_default_survives(tmp_path):
    text = replaced("init_args: {num_workers: 0}", "init_args: {val_split_mode: from_train, val_split_ratio: null}")
    assert read(tmp_path, text)[0].config["data"]["init_args"]["val_split_ratio"] is None


@pytest.mark.parametrize(
    ("init_args", "weights", "expected"),
    [
        ("{pre_trained: false}", "", "random"),
        ("{pre_trained: true}", "", "imagenet"),
        ("{}", "", "imagenet"),
        ("{pre_trained: true}", ", weights: local", "local"),
    ],
)
def test_weights_are_read_off_the_arguments_or_stated(tmp_path, init_args, weights, expected):
    text = replaced("init_args: {pre_trained: false}", f"init_args: {init_args}{weights}")
    assert {job.weights for job in read(tmp_path, text) if job.model == "padim"} == {expected}


@pytest.mark.parametrize(("targets", "expected"), [("pixels", "random"), ("features", "imagenet")])
def test_lamp_ae_of_pixels_alone_starts_from_random_weights(tmp_path, targets, expected):
    padim = "padim: {class_path: anomalib.models.Padim, init_args: {pre_trained: false}"
    text = replaced(padim, f"padim: {{class_path: LampAE, init_args: {{targets: {targets}}}")
    assert {job.weights for job in read(tmp_path, text) if job.model == "padim"} == {expected}


@pytest.mark.parametrize(
    ("init_args", "expected"),
    [
        ("{}", "imagenet"),
        ("{backbone: resnet18, weights: timm}", "imagenet"),
        ("{weights: random}", "random"),
        ("{weights: ./mine.pth}", "local"),
    ],
)
def test_weights_of_our_models_are_read_off_their_argument(tmp_path, init_args, expected):
    padim = "padim: {class_path: anomalib.models.Padim, init_args: {pre_trained: false}"
    text = replaced(padim, f"padim: {{class_path: FineTunedGaussian, init_args: {init_args}")
    assert {job.weights for job in read(tmp_path, text) if job.model == "padim"} == {expected}


def test_thresholds_come_from_held_out_training_images(tmp_path):
    arguments = read(tmp_path)[0].config["data"]["init_args"]
    assert (arguments["val_split_mode"], arguments["val_split_ratio"]) == ("synthetic", 0.1)
    text = replaced("init_args: {num_workers: 0}", "init_args: {val_split_mode: from_train, val_split_ratio: 0.3}")
    arguments = read(tmp_path, text)[0].config["data"]["init_args"]
    assert (arguments["val_split_mode"], arguments["val_split_ratio"]) == ("from_train", 0.3)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("SyntheticParts", "SynteticParts", 3, "no AnomalibDataModule is called 'SynteticParts'; did you mean Synth"),
        ("class_path: LampAE", "class_path: LampEA", 8, "no AnomalibModule is called 'LampEA'; did you mean LampAE"),
        ("anomalib.models.Padim", "no.such.Padim", 14, "no AnomalibModule is called 'no.such.Padim'"),
        ("anomalib.models.Padim", ".Padim", 14, "importing '.Padim' failed: ValueError: Empty module name"),
        ("anomalib.models.Padim", "helpers.EVIL", 14, "no AnomalibModule is called 'helpers.EVIL'"),
        ("max_steps", "max_step", 10, "unknown key 'max_step'; did you mean max_steps"),
        ("max_steps: 7", "max_steps: seven", 10, "max_steps"),
        ("base_loss", "base_los", 13, "unknown key 'base_los'; did you mean base_loss"),
        ("[l1, ssim]", "l1", 13, "expected a list of values of 'base_loss', got 'l1'"),
        ("[l1, ssim]", "[l1, [5]]", 13, "base_loss"),
        ("precision", "precison", 14, "unknown key 'precison'; did you mean precision"),
        ("accelerator: cpu", "max_epochs: many", 16, "max_epochs"),
        ("accelerator: cpu", "logger: true", 16, "'logger' is set by compare itself"),
        ("seeds: [0, 3]", "seeds: 3", 15, "expected a list of integers from 0 up to 2**32 - 1, got 3"),
        ("seeds: [0, 3]", "seeds: [4294967296]", 15, "up to 2**32 - 1, got [4294967296]"),
        ("seeds: [0, 3]", "seeds: [-1]", 15, "up to 2**32 - 1, got [-1]"),
        ("seeds: [0, 3]", "seeds: [3, 3]", 15, "a seed stands twice in [3, 3]"),
        ("seeds: [0, 3]", "job_timeout: 0", 15, "Expected job_timeout to be a positive number of seconds, got 0"),
        ("seeds: [0, 3]", "job_timeout: soon", 15, "positive number of seconds, got 'soon'"),
        ("max_steps: 7", "max_steps: -5", 10, "expected max_steps of 1 or more, got -5"),
        ("[l1, ssim]", "[l1]\n      max_steps: [2, 0]", 14, "expected max_steps of 1 or more, got 0"),
        ("accelerator: cpu", "max_epochs: -2", 16, "expected max_epochs of 1 or more, got -2"),
        ("precision: 32", "limit_train_batches: -0.5", 14, "expected limit_train_batches of 0 or more, got -0.5"),
        ("num_workers: 0", "train_batch_size: 0", 4, "expected train_batch_size of 1 or more, got 0"),
        ("trainer: {acc", "models: {b: Padim}\ntrainer: {acc", 16, "the key 'models' stands twice, first in line 6"),
        ("  padim:", "  lamp_ae: Padim\n  padim:", 14, "the key 'lamp_ae' stands twice, first in line 7"),
        ("max_steps: 7", "max_steps: 7\n      max_steps: 8", 11, "'max_steps' stands twice, first in line 10"),
        (
            "[l1, ssim]",
            "[l1, l1]",
            11,
            "'lamp_ae amplify=true base_loss=l1' is the name of two variants",
        ),
        ("[washer, fabric]", "[washer, washer]", 5, "'parts category=washer' is the name of two variants"),
        ("  padim:", "  lamp_ae amplify=true base_loss=l1: Padim\n  padim:", 14, "is the name of two variants"),
        (
            "  padim:",
            "  other: {class_path: Padim, init_args: {pre_trained: false}, trainer: {precision: 32}}\n  padim:",
            15,
            "'padim' has the same arguments as 'other' in line 14; remove one",
        ),
        (
            "  padim:",
            '  "two\\nlines": Padim\n  padim:',
            14,
            r"'two\nlines' has characters that cannot be printed",
        ),
        ("max_steps: 7", "base_loss: 2026-01-01", 10, "a timestamp is not taken here; put it in quotes"),
        ("max_steps: 7", "max_steps: !!python/object:os.system 7", 10, "python/object:os.system is not taken here"),
        ("max_steps: 7", "max_steps: !!int seven", 10, "not YAML: invalid literal for int()"),
        ("seeds: [0, 3]", "seeds: &all [0, *all]", 15, "not YAML: an alias stands inside of what it stands for"),
        ("seeds: [0, 3]", "measure: &m {<<: *m}", 15, "not YAML: an alias stands inside of what it stands for"),
        ("seeds: [0, 3]", f"seeds: {'[' * 5000}", 1, "not YAML: it is nested too deeply"),
        ("seeds: [0, 3]", "seeds: [0, 3]\n---", 16, "not YAML: but found another document"),
        ("seeds: [0, 3]", "seeds: \x00", 15, "not YAML: unacceptable character #x0000"),
        ("class_path: LampAE", f"class_path: {'LampEA' * 1000}", 8, "more characters)"),
        ("seeds:", "seds:", 15, "unknown key 'seds'; did you mean seeds"),
        ("num_workers: 0", "val_split_mode: same_as_test", 4, "leaves no validation images apart from the test set"),
        (
            "grid: {category: [washer, fabric]}",
            "grid: {val_split_mode: [none]}",
            5,
            "leaves no validation images apart",
        ),
        ("seeds: [0, 3]", "seeds: [0, 3", 16, "not YAML"),
        ("seeds: [0, 3]", "measure: {latency_batch_sizes: 1}", 15, "latency_batch_sizes: Input should be a valid list"),
        ("seeds: [0, 3]", "measure: {export: maybe}", 15, "export: Input should be a valid boolean, got 'maybe'"),
        ("seeds: [0, 3]", "measure: {latency_image_size: 0}", 15, "should be greater than 0, got 0"),
        (
            "class_path: LampAE",
            "class_path: LampAE\n    amplify: true",
            9,
            "amplify is for reconstruction losses of anomalib's own models: give `amplify` of LampAE under init_args",
        ),
        ("trainer: {prec", "amplify: true, trainer: {prec", 14, "Padim fits memories or distributions to features"),
        ("trainer: {prec", "amplify: 1, trainer: {prec", 14, "expected amplify to be true or false, got 1"),
        ("num_workers: 0}", "num_workers: 0}\n    amplify: true", 5, "unknown key 'amplify'"),
        ("trainer: {prec", "weights: coco, trainer: {prec", 14, "expected one of imagenet, local, random, got 'coco'"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, old, new, line, message):
    path = write(tmp_path, replaced(old, new))
    with pytest.raises(SpecError) as error:
        read_spec(path)
    assert f"{path}:{line}: " in str(error.value)
    assert message in str(error.value)


def test_a_problem_is_one_line_without_traceback(tmp_path):
    with pytest.raises(SpecError) as error:
        read(tmp_path, replaced("max_steps: 7", "max_steps: [" + ", ".join(["7"] * 5000) + "]"))
    head, problem = str(error.value).split("\n")
    assert head == "1 problem(s); nothing was run."
    assert len(problem) < 700


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (SPEC.replace("parts", "pärts").encode("latin-1"), 2, "not UTF-8; save the file in that encoding"),
        (SPEC.encode("utf-16"), 1, "not UTF-8"),
        (b"\xff\xfe\x00", 1, "not UTF-8"),
    ],
)
def test_a_file_in_another_encoding_is_told_with_its_line(tmp_path, content, line, message):
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError) as error:
        read_spec(path)
    assert f"{path}:{line}: {message}" in str(error.value)


def test_aliases_that_multiply_are_refused_at_once(tmp_path):
    levels = ["measure: ", "a: &a [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"{name}: &{name} [{', '.join([f'*{chr(ord(name) - 1)}'] * 10)}]" for name in "bcdefghij"]
    begun = time.perf_counter()
    with pytest.raises(SpecError, match="not YAML: with its aliases it has more than 100,000 values"):
        read(tmp_path, SPEC + "\n  ".join(levels))
    assert time.perf_counter() - begun < 5


def test_merge_keys_are_resolved_and_keep_their_lines(tmp_path):
    merged = """\
data: {parts: SyntheticParts}
models:
  base: &base
    class_path: LampAE
    init_args: &arguments {max_steps: 7, width: 8}
  wide:
    <<: *base
    init_args: {<<: *arguments, width: 16, depth: 3}
"""
    base, wide = (job.config["model"]["init_args"] for job in read(tmp_path, merged))
    assert (base["max_steps"], base["width"]) == (7, 8)
    assert (wide["max_steps"], wide["width"], wide["depth"]) == (7, 16, 3)
    with pytest.raises(SpecError, match=r"spec.yaml:5: expected max_steps of 1 or more, got 0"):
        read(tmp_path, merged.replace("max_steps: 7", "max_steps: 0"))
    with pytest.raises(SpecError, match=r"spec.yaml:8: unknown key 'dept'"):
        read(tmp_path, merged.replace("depth", "dept"))


@pytest.mark.parametrize("value", ["-1", "3"])
def test_a_trainer_may_have_no_limit_of_epochs_or_steps(tmp_path, value):
    jobs = read(tmp_path, replaced("accelerator: cpu", f"max_epochs: {value}, max_steps: {value}"))
    assert jobs[0].config["trainer"] == {"max_epochs": int(value), "max_steps": int(value)}


def grid(**values):
    """Return a spec with a grid of LampAE."""
    return yaml.dump({"data": {"p": "SyntheticParts"}, "models": {"m": {"class_path": "LampAE", "grid": values}}})


def test_a_grid_is_counted_before_it_is_resolved(tmp_path):
    text = grid(max_steps=list(range(1, 1001)), width=list(range(1, 1001)))
    begun = time.perf_counter()
    with pytest.raises(SpecError, match=r"1,000,000 jobs, 1 data sets x 1,000,000 models x .*max_jobs 1000000"):
        read(tmp_path, text)
    assert time.perf_counter() - begun < 5
    few = write(tmp_path, grid(max_steps=[1, 2, 3]))
    with pytest.raises(SpecError, match=r"3 jobs, .* are more than 2"):
        read_spec(few, max_jobs=2)
    assert len(read_spec(few, max_jobs=3)) == 3


def test_values_of_a_grid_are_parsed_once_and_give_what_parsing_all_gives(tmp_path, monkeypatch):
    parsed = []
    parse = ArgumentParser.parse_object
    monkeypatch.setattr(ArgumentParser, "parse_object", lambda *args: (parsed.append(1), parse(*args))[1])
    jobs = read(tmp_path, grid(max_steps=list(range(1, 51)), width=[4, 8], base_loss=["l1", "ssim"]))
    assert len(jobs) == 200
    assert len(parsed) < 50 + 2 + 2 + 10  # a thousandth of a second each would be 10 s for 10,000 variants
    for job in jobs[::37]:
        alone = {"class_path": "LampAE", "init_args": job.grid}
        (same,) = read(tmp_path, yaml.dump({"data": {"p": "SyntheticParts"}, "models": {"m": alone}}))
        assert same.config == job.config


def test_a_wrong_value_of_a_large_grid_is_told_once(tmp_path):
    with pytest.raises(SpecError) as error:
        read(tmp_path, grid(max_steps=[*range(1, 100), "many"], width=["wide", *range(1, 50)]))
    assert len(error.value.problems) == 2


def test_a_missing_folder_is_told_unless_its_data_is_drawn(tmp_path):
    text = replaced("num_workers: 0", "root: /no/such/folder")
    assert read(tmp_path, text)
    text = text.replace("SyntheticParts", "MVTec").replace("category: [washer, fabric]", "category: [bottle, grid]")
    with pytest.raises(SpecError, match=r":4: there is no folder /no/such/folder .*MVTec\(root='/no/such/folder'\)"):
        read(tmp_path, text)


def test_all_problems_are_told_at_once(tmp_path):
    text = SPEC.replace("LampAE", "LampEA").replace("SyntheticParts", "Parts").replace("seeds", "seds")
    with pytest.raises(SpecError) as error:
        read(tmp_path, text)
    assert [problem.line for problem in error.value.problems] == [3, 8, 15]
    assert "3 problem(s); nothing was run." in str(error.value)


def test_a_missing_section_or_file_is_told(tmp_path):
    with pytest.raises(SpecError, match="under 'models'"):
        read(tmp_path, yaml.dump({"data": {"parts": "SyntheticParts"}}))
    with pytest.raises(SpecError, match="expected the keys data, models"):
        read(tmp_path, "just text")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_spec(tmp_path / "nowhere.yaml")


def test_a_class_alone_is_an_entry(tmp_path):
    (job,) = read(tmp_path, "data: {parts: SyntheticParts}\nmodels: {padim: Padim}\n")
    assert isinstance(instantiate(job.config["model"] | {"init_args": {"pre_trained": False}}), Padim)


STFPM = "data: {parts: SyntheticParts}\nmodels:\n  a: {class_path: Stfpm, trainer: {max_epochs: 1}}\n"


def test_an_amplified_model_is_another_job_and_no_other_job_changes(tmp_path):
    (alone,) = read(tmp_path, STFPM)
    without, same, with_lamp = read(
        tmp_path,
        STFPM
        + "  b: {class_path: Stfpm, trainer: {max_epochs: 2}, amplify: false}\n"
        + "  c: {class_path: Stfpm, trainer: {max_epochs: 1}, amplify: true}\n",
    )
    assert without.id == alone.id
    assert "amplify" not in same.config
    assert with_lamp.config == {**alone.config, "amplify": True}
    assert with_lamp.id != alone.id


def test_models_of_an_unknown_anomalib_are_not_amplified(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2.8.0")
    with pytest.raises(SpecError, match=r"spec.yaml:3: .*Expected anomalib 2\.7\.0, whose losses are known, got 2\.8"):
        read(tmp_path, STFPM.replace("1}}", "1}, amplify: true}"))
