"""A spec becomes the right jobs, and everything wrong with it is told at once, with lines, before anything runs."""

import pytest
import yaml
from anomalib.models import Padim

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
        ("max_steps", "max_step", 10, "unknown key 'max_step'; did you mean max_steps"),
        ("max_steps: 7", "max_steps: seven", 10, "max_steps"),
        ("base_loss", "base_los", 13, "unknown key 'base_los'; did you mean base_loss"),
        ("[l1, ssim]", "l1", 13, "expected a list of values of 'base_loss', got 'l1'"),
        ("[l1, ssim]", "[l1, [5]]", 13, "base_loss"),
        ("precision", "precison", 14, "unknown key 'precison'; did you mean precision"),
        ("accelerator: cpu", "max_epochs: many", 16, "max_epochs"),
        ("accelerator: cpu", "logger: true", 16, "'logger' is set by compare itself"),
        ("seeds: [0, 3]", "seeds: 3", 15, "expected a list of integers from 0 up, got 3"),
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
        ("trainer: {prec", "weights: coco, trainer: {prec", 14, "expected one of imagenet, local, random, got 'coco'"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, old, new, line, message):
    path = write(tmp_path, replaced(old, new))
    with pytest.raises(SpecError) as error:
        read_spec(path)
    assert f"{path}:{line}: " in str(error.value)
    assert message in str(error.value)


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
