"""Images are shifted by whole pixels, as far as learning by heart asks for, and not at all otherwise."""

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from anomalib_lamp import LampAE
from anomalib_lamp.models.lamp_ae import adaptive_shift
from anomalib_lamp.models.lamp_ae.adaptive_shift import AdaptiveShift

LEARNT_BY_HEART = {"held_out_loss": 1.2, "learnt_loss": 1.0}
NOT_LEARNT_BY_HEART = {"held_out_loss": 1.0, "learnt_loss": 1.0}


def far_reaching(times, furthest=0.125):
    shift = AdaptiveShift(furthest)
    for _ in range(times):
        shift.adapt(**LEARNT_BY_HEART)
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
    shift.adapt(**NOT_LEARNT_BY_HEART)
    assert shift(images) is images
    assert torch.equal(torch.get_rng_state(), state)


def test_the_reach_grows_to_its_limit_and_shrinks_to_nothing():
    shift = AdaptiveShift(0.04)
    reaches = []
    for losses in [LEARNT_BY_HEART] * 4 + [NOT_LEARNT_BY_HEART] * 4:
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
        model = LampAE(width=4, depth=3, image_size=64, max_steps=max_steps, seed=0, visualizer=False, **arguments)
        engine = make_engine(logger=CSVLogger(parts.root.parent, name="curves"), log_every_n_steps=1, **(trainer or {}))
        engine.fit(model, datamodule=parts, ckpt_path=ckpt_path)
        curves = pd.read_csv(f"{engine.trainer.logger.log_dir}/metrics.csv")
        return model, engine, curves["shift_reach"].dropna().tolist()

    def weights(self, model):
        return torch.cat([parameter.detach().flatten() for parameter in model.model.parameters()])

    def test_images_are_shifted_once_they_are_learnt_by_heart_also_when_resumed(self, make_engine, parts, monkeypatch):
        monkeypatch.setattr(adaptive_shift, "LEARNT_BY_HEART", 0.0)  # as if they were, from the first step
        never, _, reaches = self.fit(make_engine, parts, furthest_shift=0.0)
        assert reaches == [0, 0, 0, 0]
        model, engine, reaches = self.fit(make_engine, parts)
        assert reaches == pytest.approx([0, 1 / 64, 2 / 64, 3 / 64])
        assert not torch.equal(self.weights(model), self.weights(never))
        _, _, reaches = self.fit(make_engine, parts, max_steps=6, ckpt_path=engine.best_model_path)
        assert reaches == pytest.approx([4 / 64, 5 / 64])

    def test_gradients_that_are_accumulated_count_as_one_step(self, make_engine, parts, monkeypatch):
        monkeypatch.setattr(adaptive_shift, "LEARNT_BY_HEART", 0.0)
        _, _, reaches = self.fit(make_engine, parts, trainer={"accumulate_grad_batches": 2})
        assert reaches[-1] == pytest.approx(3 / 64)

    def test_weights_are_the_same_where_nothing_is_learnt_by_heart(self, make_engine, parts, monkeypatch):
        monkeypatch.setattr(adaptive_shift, "LEARNT_BY_HEART", float("inf"))
        model, _, reaches = self.fit(make_engine, parts)
        assert set(reaches) == {0}
        never, _, _ = self.fit(make_engine, parts, furthest_shift=0.0)
        assert torch.equal(self.weights(model), self.weights(never))

    def test_held_out_images_are_compared_with_as_many_learnt_ones(self, make_engine, parts, monkeypatch):
        compared = []
        monkeypatch.setattr(AdaptiveShift, "adapt", lambda _, *losses: compared.append(losses))

        class Watched(LampAE):
            def on_train_batch_end(self, *args):
                super().on_train_batch_end(*args)
                self.sample, self.average = self._learnt, self._best._average

        model = Watched(width=4, depth=3, image_size=64, max_steps=2, seed=0, visualizer=False)
        make_engine().fit(model, datamodule=parts)
        damaged, normal = model.sample
        learn, held_out = 4, 4
        assert len(normal) == held_out == learn
        images = torch.stack([model.pre_processor.transform(item.image) for item in parts.train_data])
        distances = (images[:, None] - normal).abs().amax((2, 3, 4))
        assert (distances == 0).sum() == len(normal)
        with torch.no_grad():
            loss = model.loss(model.average(damaged), normal).item() * len(normal)
        assert compared[-1][1] == pytest.approx(loss, rel=1e-5)
