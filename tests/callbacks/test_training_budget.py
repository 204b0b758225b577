"""How long a training takes, when it is validated, and that a seed repeats it."""

from datetime import timedelta

import pytest
import torch
from anomalib.metrics import AUROC, Evaluator
from helpers import make_fine_tuned_gaussian, make_lamp_ae, make_parts
from lightning.pytorch.callbacks import Callback, EarlyStopping, Timer

from anomalib_lamp import LampAE


class CountValidations(Callback):
    """Remembers after which steps validation ran."""

    def __init__(self):
        self.steps = []

    def on_validation_end(self, trainer, pl_module):  # noqa: ARG002
        self.steps.append(trainer.global_step)


class TestTrainingBudget:
    def fit(self, engine, parts, **arguments):
        engine.fit(make_lamp_ae(**arguments), datamodule=parts)
        return engine.trainer.global_step

    def test_the_models_own_steps_end_the_training(self, make_engine, parts):
        assert self.fit(make_engine(), parts, max_steps=5) == 5

    @pytest.mark.parametrize("steps", [3, 7])
    def test_steps_given_to_the_trainer_win_in_both_directions(self, make_engine, parts, steps):
        assert self.fit(make_engine(max_steps=steps), parts, max_steps=5) == steps

    @pytest.mark.parametrize("epochs", [1, 4])
    def test_epochs_given_to_the_trainer_win_in_both_directions(self, make_engine, parts, epochs):
        steps_per_epoch = 2
        assert self.fit(make_engine(max_epochs=epochs), parts, max_steps=5) == epochs * steps_per_epoch

    def test_a_time_limit_keeps_the_models_steps(self, make_engine, parts):
        assert self.fit(make_engine(max_time="00:01:00:00"), parts, max_steps=5) == 5

    def test_validates_halfway_and_after_the_last_step(self, make_engine, parts):
        counter = CountValidations()
        self.fit(make_engine(callbacks=[counter]), parts, max_steps=17)
        assert counter.steps == [9, 17]

    def test_steps_given_by_the_user_are_validated_as_often(self, make_engine, parts):
        counter = CountValidations()
        self.fit(make_engine(callbacks=[counter], max_steps=20), parts)
        assert counter.steps == [10, 20]

    def test_counts_optimisation_steps_when_gradients_are_accumulated(self, make_engine, parts):
        counter = CountValidations()
        self.fit(make_engine(callbacks=[counter], accumulate_grad_batches=2), parts, max_steps=10)
        assert counter.steps == [5, 10]

    @pytest.mark.parametrize("own", [{}, {"max_steps": 20}])
    def test_a_validation_interval_given_by_the_user_is_kept_and_the_end_is_validated(self, make_engine, parts, own):
        counter = CountValidations()
        engine = make_engine(callbacks=[counter], check_val_every_n_epoch=3, **own)
        self.fit(engine, parts, max_steps=20)
        assert counter.steps == [6, 12, 18, 20]
        assert engine.trainer.checkpoint_callback.best_model_path

    @pytest.mark.parametrize("steps", [3, 4])
    def test_the_users_last_step_is_validated_too(self, make_engine, parts, steps):
        engine = make_engine(max_steps=steps)
        self.fit(engine, parts)
        assert torch.isfinite(engine.model.post_processor.image_threshold)

    @pytest.mark.parametrize("interval", [2, 5])
    def test_the_last_epoch_is_calibrated_and_validated_whatever_the_interval(self, make_engine, parts, interval):
        counter = CountValidations()
        engine = make_engine(callbacks=[counter], max_epochs=3, check_val_every_n_epoch=interval)
        engine.fit(make_lamp_ae(calibration="location"), datamodule=parts)
        assert counter.steps[-1] == engine.trainer.global_step == 6
        saved = LampAE.load_from_checkpoint(engine.trainer.checkpoint_callback.best_model_path)
        assert saved.model.map_and_score.generators[0].location_mean.shape == (64, 64)


class TestSeed:
    def weights(self, engine, parts, **arguments):
        torch.manual_seed(torch.seed())  # whatever the global state is
        model = make_lamp_ae(**arguments)
        engine.fit(model, datamodule=parts)
        return torch.cat([parameter.detach().flatten() for parameter in model.model.parameters()])

    def test_two_runs_give_identical_weights(self, make_engine, parts_root):
        first, second, other = (
            self.weights(make_engine(), make_parts(parts_root), seed=seed, max_steps=6) for seed in (3, 3, 4)
        )
        assert torch.equal(first, second)
        assert not torch.equal(first, other)

    def test_building_a_model_leaves_the_global_state_alone(self):
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        make_lamp_ae(seed=1)
        assert torch.equal(torch.rand(3), expected)


def test_a_second_fit_with_the_same_engine_is_refused(make_engine, parts):
    engine = make_engine()
    engine.fit(make_lamp_ae(max_steps=2), datamodule=parts)
    with pytest.raises(RuntimeError, match="a new Engine for every fit, got one that has trained 2 steps"):
        engine.fit(make_lamp_ae(max_steps=2), datamodule=parts)


class StopsAtAnEpochsEnd(Callback):
    """Asks to stop, as early stopping does."""

    def on_train_epoch_end(self, trainer, pl_module):  # noqa: ARG002
        trainer.should_stop = trainer.current_epoch == 2


@pytest.mark.parametrize(
    "callback",
    [
        lambda: StopsAtAnEpochsEnd(),
        lambda: EarlyStopping("train_loss_epoch", patience=1, min_delta=1e9, check_on_train_epoch_end=True),
        lambda: Timer(duration=timedelta(milliseconds=50), interval="epoch"),
    ],
    ids=["should_stop", "EarlyStopping", "Timer"],
)
@pytest.mark.parametrize("make", [make_lamp_ae, make_fine_tuned_gaussian], ids=["LampAE", "FineTunedGaussian"])
def test_a_training_stopped_at_an_epochs_end_is_validated_and_saved(make_engine, parts, callback, make):
    counter = CountValidations()
    model = make(max_steps=50)
    engine = make_engine(callbacks=[counter, callback()])
    engine.fit(model, datamodule=parts)
    steps = engine.trainer.global_step
    assert 0 < steps < 50
    assert counter.steps[-1] == steps
    assert torch.isfinite(model.post_processor.image_threshold)
    assert torch.load(engine.best_model_path, weights_only=False)["global_step"] == steps


def test_early_stopping_looks_after_each_validation(make_engine, parts):
    """Validations are spread over the steps, so their metrics are not there at the end of every epoch."""
    counter = CountValidations()
    early = EarlyStopping(monitor="image_AUROC", mode="max", stopping_threshold=0.0)
    evaluator = Evaluator(val_metrics=[AUROC(["pred_score", "gt_label"], prefix="image_")])
    engine = make_engine(callbacks=[counter, early])
    engine.fit(make_lamp_ae(max_steps=40, evaluator=evaluator), datamodule=parts)
    assert counter.steps == [20]
    assert torch.load(engine.best_model_path, weights_only=False)["global_step"] == 20
