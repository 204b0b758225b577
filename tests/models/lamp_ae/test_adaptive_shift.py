"""Images are shifted by whole pixels once the network overfits, and not at all before."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import best_average, make_lamp_ae, make_parts
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger

from anomalib_lamp import LampAE
from anomalib_lamp.callbacks import BestAverage
from anomalib_lamp.corruption import repeatably
from anomalib_lamp.models.lamp_ae import adaptive_shift
from anomalib_lamp.models.lamp_ae.adaptive_shift import AdaptiveShift

OVERFITTING = {"held_out_loss": 1.2, "learnt_loss": 1.0}
NO_OVERFITTING = {"held_out_loss": 1.0, "learnt_loss": 1.0}


def far_reaching(times, furthest=0.125):
    shift = AdaptiveShift(furthest)
    for _ in range(times):
        shift.adapt(**OVERFITTING)
    return shift


def windows(image, down, right):
    """Return every window of an image (C, H, W) that NumPy has enlarged by reflection, by its shift."""
    padded = np.pad(image, ((0, 0), (down, down), (right, right)), mode="reflect")
    height, width = image.shape[1:]
    return {
        (top, left): padded[:, top : top + height, left : left + width]
        for top in range(2 * down + 1)
        for left in range(2 * right + 1)
    }


def test_every_image_is_shifted_in_its_own_way_by_whole_pixels():
    images = torch.rand(200, 3, 32, 64)
    shifted = far_reaching(4)(images)
    found = []
    for image, moved in zip(images.numpy(), shifted.numpy(), strict=True):
        equal = [place for place, window in windows(image, 2, 4).items() if np.array_equal(window, moved)]
        assert len(equal) == 1
        found += equal
    assert {top for top, _ in found} == set(range(5))
    assert {left for _, left in found} == set(range(9))


def test_nothing_is_done_or_drawn_without_need():
    images = torch.rand(4, 3, 32, 32)
    state = torch.get_rng_state()
    shift = AdaptiveShift()
    shift.adapt(**NO_OVERFITTING)
    assert shift(images) is images
    assert torch.equal(torch.get_rng_state(), state)


def test_the_reach_grows_to_its_limit_and_shrinks_to_nothing():
    shift = AdaptiveShift(0.04)
    reaches = []
    for losses in [OVERFITTING] * 4 + [NO_OVERFITTING] * 4:
        shift.adapt(**losses)
        reaches.append(shift.reach)
    assert reaches == pytest.approx([1 / 64, 2 / 64, 0.04, 0.04, 0.04 - 1 / 64, 0.04 - 2 / 64, 0, 0])


def test_a_furthest_shift_of_zero_never_shifts():
    assert far_reaching(3, furthest=0.0).reach == 0


def test_the_farthest_reach_of_all_stays_within_what_reflection_can_fill():
    images = torch.rand(2, 3, 32, 48)
    assert far_reaching(64, furthest=0.999)(images).shape == images.shape


@pytest.mark.parametrize("furthest", [-0.1, 1.0])
def test_rejects_a_shift_out_of_range(furthest):
    with pytest.raises(ValueError, match=rf"furthest_shift in \[0, 1\), got {furthest}"):
        LampAE(furthest_shift=furthest)


class TestInTraining:
    def fit(self, make_engine, parts, max_steps=4, ckpt_path=None, trainer=None, **arguments):
        model = make_lamp_ae(max_steps=max_steps, **arguments)
        engine = make_engine(logger=CSVLogger(parts.root.parent, name="curves"), log_every_n_steps=1, **(trainer or {}))
        engine.fit(model, datamodule=parts, ckpt_path=ckpt_path)
        curves = pd.read_csv(f"{engine.trainer.logger.log_dir}/metrics.csv")
        return model, engine, curves["shift_reach"].dropna().tolist()

    def weights(self, model):
        return torch.cat([parameter.detach().flatten() for parameter in model.model.parameters()])

    def test_images_are_shifted_once_the_network_overfits_also_when_resumed(self, make_engine, parts_root, monkeypatch):
        parts = make_parts(parts_root, train_batch_size=8)  # of which four are held out
        monkeypatch.setattr(adaptive_shift, "OVERFITTING_RATIO", 0.0)  # as if it did, from the first step
        never, _, reaches = self.fit(make_engine, parts, furthest_shift=0.0)
        assert reaches == [0, 0, 0, 0]
        model, engine, reaches = self.fit(make_engine, parts)
        assert reaches == pytest.approx([0, 1 / 64, 2 / 64, 3 / 64])
        assert not torch.equal(self.weights(model), self.weights(never))
        _, _, reaches = self.fit(make_engine, parts, max_steps=6, ckpt_path=engine.best_model_path)
        assert reaches == pytest.approx([4 / 64, 5 / 64])

    def test_gradients_that_are_accumulated_count_as_one_step(self, make_engine, parts, monkeypatch):
        monkeypatch.setattr(adaptive_shift, "OVERFITTING_RATIO", 0.0)
        _, _, reaches = self.fit(make_engine, parts, trainer={"accumulate_grad_batches": 2})
        assert reaches[-1] == pytest.approx(3 / 64)

    def test_weights_are_the_same_without_overfitting(self, make_engine, parts, monkeypatch):
        monkeypatch.setattr(adaptive_shift, "OVERFITTING_RATIO", float("inf"))
        model, _, reaches = self.fit(make_engine, parts)
        assert set(reaches) == {0}
        never, _, _ = self.fit(make_engine, parts, furthest_shift=0.0)
        assert torch.equal(self.weights(model), self.weights(never))

    def test_held_out_images_are_compared_with_as_many_learnt_ones(self, make_engine, parts, monkeypatch):
        compared, given = [], []
        monkeypatch.setattr(AdaptiveShift, "adapt", lambda _, *losses: compared.append(losses))
        begin = BestAverage.begin
        monkeypatch.setattr(BestAverage, "begin", lambda best, *images: given.extend(images) or begin(best, *images))

        class KeepsAverage(Callback):
            def on_validation_end(self, trainer, pl_module):  # noqa: ARG002
                self.average = copy.deepcopy(best_average(trainer).average)

        keeps = KeepsAverage()
        model = make_lamp_ae(max_steps=2)
        make_engine(callbacks=[keeps]).fit(model, datamodule=parts)
        held_out, learnt = given
        assert len(learnt) == len(held_out) == 4
        images = torch.stack([model.pre_processor.transform(item.image) for item in parts.train_data])
        for some in (held_out, learnt):
            assert ((images[:, None] - some).abs().amax((2, 3, 4)) == 0).sum() == 4
        for loss, normal in zip(compared[-1], given, strict=True):
            with torch.no_grad():
                repaired = keeps.average(repeatably(model.corruption, normal))
            assert loss == pytest.approx(4 * model.loss(repaired, normal).item(), rel=1e-5)
