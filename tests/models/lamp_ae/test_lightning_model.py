"""LampAE in anomalib's Engine: budget, reproducibility, optimisers, logs, metrics, checkpoints."""

from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import make_lamp_ae, make_parts
from lightning.pytorch.loggers import CSVLogger
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score

from anomalib_lamp import LampAE

SMALL = {"targets": "pixels", "width": 4, "depth": 3, "image_size": 64}


def raw_predictions(model, loader):
    """Return what the model itself predicts, before post-processing."""
    model.eval()
    with torch.no_grad():
        return [model.model(model.pre_processor.transform(batch.image)) for batch in loader]


class TestTraining:
    @pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop", "sgd"])
    @pytest.mark.parametrize("reduction", ["sum", "mean"])
    def test_every_optimiser_lowers_the_loss_with_its_default_rate(self, make_engine, parts, optimizer, reduction):
        model = make_lamp_ae(optimizer=optimizer, reduction=reduction, max_steps=30, base_loss="l1")
        images = next(iter(self.loader(parts))).image
        before = model.loss(model.model.train()(images), images).item()
        make_engine(barebones=True, enable_checkpointing=False).fit(model, datamodule=parts)
        assert model.loss(model.model.train()(images), images).item() < 0.9 * before

    def loader(self, parts):
        parts.prepare_data()
        parts.setup()
        return parts.train_dataloader()

    @pytest.mark.parametrize("base_loss", ["l1", "l2", "ssim", "msgms"])
    @pytest.mark.parametrize("amplify", [True, False])
    def test_logs_the_training_curves(self, make_engine, parts_root, tmp_path, base_loss, amplify):
        parts = make_parts(parts_root, train_batch_size=8)  # of which four are held out
        model = make_lamp_ae(base_loss=base_loss, amplify=amplify, max_steps=4, reduction="mean")
        make_engine(logger=CSVLogger(tmp_path), log_every_n_steps=1).fit(model, datamodule=parts)
        curves = pd.read_csv(next(tmp_path.rglob("metrics.csv")))
        loss, error = curves["train_loss_step"].dropna(), curves["train_base_error_step"].dropna()
        assert len(loss) == len(error) == 4
        assert (loss > error).all() if amplify else np.allclose(loss, error)
        assert curves["learning_rate"].max() == pytest.approx(1e-3)

    def test_the_target_is_the_image_before_it_was_damaged(self, parts):
        batch = next(iter(self.loader(parts)))
        model = make_lamp_ae(corruption_strength=1.0, mixed_precision=False)
        seen = {}
        model.model.network.register_forward_pre_hook(lambda _, inputs: seen.update(input=inputs[0]))
        model.loss.base_error = lambda reconstruction, target: seen.update(target=target) or reconstruction
        model.log = lambda *_, **__: None
        model.optimizers = lambda: torch.optim.SGD(model.parameters(), lr=1.0)
        trainer = Mock(world_size=1)
        model.trainer = trainer  # the model keeps a weak reference
        model.training_step(batch, 0)
        assert torch.equal(seen["target"], batch.image)
        assert not torch.equal(seen["input"], batch.image)

    @pytest.mark.parametrize(("noise", "changed_everywhere"), [(0.0, False), (0.05, True)])
    def test_noise_falls_on_all_of_the_image_if_asked_for(self, noise, changed_everywhere):
        images = torch.full((8, 3, 64, 64), 0.5)
        changed = make_lamp_ae(corruption_noise=noise).corruption(images) != images
        assert (changed.float().mean() > 0.9) == changed_everywhere

    @pytest.mark.parametrize(("fast", "asked"), [(True, True), (True, False), (False, True)])
    def test_learns_in_bfloat16_where_that_is_fast(self, make_engine, parts, monkeypatch, fast, asked):
        monkeypatch.setattr("anomalib_lamp.models.lamp_ae.lightning_model.has_fast_bfloat16", lambda _: fast)
        model = make_lamp_ae(mixed_precision=asked)
        learnt, predicted = set(), set()
        model.model.network.middle.register_forward_hook(
            lambda module, _, output: (learnt if module.training else predicted).add(output.dtype)
        )
        make_engine().fit(model, datamodule=parts)
        assert learnt == {torch.bfloat16 if fast and asked else torch.float32}
        assert predicted == {torch.float32}
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}

    def test_rejects_normalised_images_with_the_remedy(self, make_engine, parts):
        from anomalib.pre_processing import PreProcessor
        from torchvision.transforms.v2 import Compose, Normalize, Resize

        pre_processor = PreProcessor(Compose([Resize((64, 64)), Normalize([0.5] * 3, [0.2] * 3)]))
        with pytest.raises(ValueError, match="do not normalise them by mean and deviation"):
            make_engine().fit(make_lamp_ae(pre_processor=pre_processor), datamodule=parts)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"max_steps": 0}, "max_steps to be at least 1"),
            ({"reduction": "none"}, "training needs a scalar"),
            ({"base_loss": "psnr"}, "got 'psnr'"),
            ({"image_size": 8}, r"at least 16 pixels a side for depth=3, got \(8, 8\)"),
            ({"corruption_strength": 2.0}, r"strength in \[0, 1\], got 2.0"),
            ({"corruption_kinds": ["rain"]}, r"got \['rain'\]"),
            ({"corruption_noise": -0.1}, "noise to be 0 or a standard deviation in grey levels of 1, got -0.1"),
            ({"optimizer": "lion"}, r"\['adam', 'adamw', 'rmsprop', 'sgd'\], got 'lion'"),
            ({"schedule": "step"}, r"\['constant', 'cosine'\], got 'step'"),
            ({"learning_rate": 0.0}, "learning_rate to be larger than 0, got 0.0"),
        ],
    )
    def test_rejects_bad_arguments_before_training(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            make_lamp_ae(**arguments)


class TestResults:
    def test_metrics_agree_with_scikit_learn_on_the_same_scores(self, make_engine, parts):
        """scikit-learn sees the raw scores, anomalib the normalised ones."""
        model = make_lamp_ae(max_steps=20)
        engine = make_engine()
        engine.fit(model, datamodule=parts)
        metrics = engine.test(model, datamodule=parts)[0]
        raw = {"labels": [], "scores": [], "masks": [], "maps": []}
        model.eval()
        for batch in parts.test_dataloader():
            with torch.no_grad():
                predictions = model.model(batch.image)
            raw["labels"].append(batch.gt_label)
            raw["scores"].append(predictions.pred_score[:, 0])
            raw["masks"].append(batch.gt_mask.flatten())
            raw["maps"].append(predictions.anomaly_map.flatten())
        labels, scores, masks, maps = (torch.cat(values).numpy() for values in raw.values())
        assert metrics["image_AUROC"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
        assert metrics["pixel_AUROC"] == pytest.approx(roc_auc_score(masks, maps), abs=1e-6)

    def test_checkpoint_gives_identical_scores(self, make_engine, parts):
        model = make_lamp_ae(architecture="unet", skip_connections=False, map_metric="ssim", pooling="topk")
        engine = make_engine()
        engine.fit(model, datamodule=parts)
        loaded = LampAE.load_from_checkpoint(engine.trainer.checkpoint_callback.best_model_path, weights_only=True)
        images = torch.rand(2, 3, 90, 90)
        before, after = model.eval()(images), loaded.eval()(images)
        assert dict(loaded.hparams)["map_metric"] == "ssim"
        assert torch.equal(before.pred_score, after.pred_score)
        assert torch.equal(before.anomaly_map, after.anomaly_map)

    def test_thresholds_from_good_images_alone(self, make_engine, parts_root):
        parts = make_parts(parts_root, val_split_mode="from_train", val_split_ratio=0.5)
        engine = make_engine()
        engine.fit(make_lamp_ae(false_positive_rate=0.1), datamodule=parts)
        checkpoint = LampAE.load_from_checkpoint(engine.best_model_path)
        assert checkpoint.post_processor.false_positive_rate == 0.1
        scores = torch.cat([batch.pred_score for batch in raw_predictions(checkpoint, parts.val_dataloader())])
        log_odds = torch.logit(scores.double().flatten())
        width = student.ppf(0.9, len(log_odds) - 1) * (1 + 1 / len(log_odds)) ** 0.5
        expected = torch.sigmoid(log_odds.mean() + width * log_odds.std()).item()
        assert checkpoint.post_processor.image_threshold.item() == pytest.approx(expected, abs=1e-4)

    def test_resumes_an_interrupted_training(self, make_engine, parts):
        engine = make_engine()
        engine.fit(make_lamp_ae(max_steps=4), datamodule=parts)
        checkpoint = engine.trainer.checkpoint_callback.best_model_path
        resumed = make_engine()
        resumed.fit(make_lamp_ae(max_steps=9), datamodule=parts, ckpt_path=checkpoint)
        assert resumed.trainer.global_step == 9


class TestCalibration:
    def fit(self, make_engine, parts, **arguments):
        model = make_lamp_ae(**{"max_steps": 3, "seed": 0, **arguments})
        engine = make_engine()
        engine.fit(model, datamodule=parts)
        return model, engine

    @pytest.mark.parametrize("calibration", ["auto", "none"])
    def test_held_out_images_are_not_learnt(self, make_engine, parts, calibration):
        model = make_lamp_ae(calibration=calibration, max_steps=6)
        learnt, to_learn = [], model.held_out.to_learn
        model.held_out.to_learn = lambda batch: learnt.append(to_learn(batch)) or learnt[-1]
        make_engine().fit(model, datamodule=parts)  # 8 images in batches of 4, 4 of them held out
        assert sum(map(len, learnt)) == 3 * 4
        assert len(model.held_out.images) == 0

    def test_the_decision_is_in_the_checkpoint(self, make_engine, parts):
        model, engine = self.fit(make_engine, parts, calibration="auto")
        loaded = LampAE.load_from_checkpoint(engine.trainer.checkpoint_callback.best_model_path)
        assert loaded.model.map_and_score.calibration == model.model.map_and_score.calibration == "location"
        images = torch.rand(2, 3, 64, 64)
        torch.testing.assert_close(loaded.eval()(images).anomaly_map, model.eval()(images).anomaly_map)

    @pytest.mark.parametrize("limit", [{"limit_val_batches": 0}, {"limit_val_batches": 0, "max_steps": 2}])
    def test_calibrated_and_saved_without_validation_images(self, make_engine, parts, limit):
        model = make_lamp_ae(max_steps=2, seed=0, calibration="location")
        engine = make_engine(**limit)
        engine.fit(model, datamodule=parts)
        assert model.model.map_and_score.generators[0].location_mean.shape == (64, 64)
        images = torch.rand(2, 3, 64, 64)
        saved = LampAE.load_from_checkpoint(engine.trainer.checkpoint_callback.best_model_path)
        assert torch.equal(saved.eval().model(images).anomaly_map, model.eval().model(images).anomaly_map)

    def test_a_few_images_are_learnt_without_calibration(self, make_engine, tmp_path):
        few = make_parts(tmp_path, num_train=3)
        with pytest.warns(UserWarning, match="Too few training images to hold some out"):
            model, _ = self.fit(make_engine, few)
        assert model.model.map_and_score.calibration == "none"
        with pytest.raises(ValueError, match="at least 8 training images for calibration='location'"):
            self.fit(make_engine, make_parts(tmp_path, num_train=3), calibration="location")


def test_a_diverged_training_stops_and_keeps_its_checkpoint(make_engine, parts):
    class Diverges(LampAE):
        def training_step(self, batch, *args, **kwargs):
            if self.trainer.global_step == 6:
                next(self.model.parameters()).data.fill_(float("nan"))
            return super().training_step(batch, *args, **kwargs)

    engine = make_engine()
    with pytest.raises(FloatingPointError, match="at step 6: the training has diverged"):
        engine.fit(Diverges(**SMALL, max_steps=8, seed=0), datamodule=parts)
    kept = torch.load(engine.trainer.checkpoint_callback.best_model_path, weights_only=False)["state_dict"]
    assert all(value.isfinite().all() for name, value in kept.items() if name.startswith("model.network"))


def test_a_batch_of_held_out_images_only_gives_gradients_of_zero(make_engine, parts_root):
    """Other processes would wait for them forever, and a gradient scaler would refuse to step."""
    gradients = []

    class Watched(LampAE):
        def on_after_backward(self):
            if not len(self.held_out.to_learn(self.batch)):
                gradients.append(all((parameter.grad == 0).all() for parameter in self.model.parameters()))

        def on_train_batch_start(self, batch, *args):
            del args
            self.batch = batch

    parts = make_parts(parts_root, train_batch_size=1)
    make_engine().fit(Watched(**SMALL, calibration="location", max_steps=12, seed=0), datamodule=parts)
    assert gradients
    assert all(gradients)
