"""A training that is killed anywhere and resumed ends with the weights that it would have had."""

import errno
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from anomalib.engine import Engine
from helpers import make_fine_tuned_gaussian, make_lamp_ae, make_parts
from lightning import Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback

from anomalib_lamp.callbacks import RepeatableSteps
from anomalib_lamp.callbacks.resume_points import WholeFiles

STEPS = 40  # 2 to an epoch; a resume point every 2, a validation every 20
MODELS = {
    "LampAE": lambda: make_lamp_ae(max_steps=STEPS),
    "LampAE with features": lambda: make_lamp_ae(max_steps=STEPS, targets="pixels+features", weights="random"),
    "FineTunedGaussian": lambda: make_fine_tuned_gaussian(max_steps=STEPS, check_every=3, learning_rate=1e-4),
}


def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)


class KilledAt(Callback):
    """Kills its own process when a hook is called after so many steps."""

    def __init__(self, hook, step):
        self.step = step
        setattr(self, hook, self.maybe_kill)

    def maybe_kill(self, trainer, *_):
        if trainer.global_step >= self.step:
            kill()


class KilledWhileSaving(Callback):
    """Kills its own process when a checkpoint is half written."""

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 23:
            Path.replace = kill


class FullDisk(TorchCheckpointIO):
    """Fails when half of a checkpoint is written."""

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        del checkpoint, storage_options
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "no space left")


POINTS = {
    "before the first resume point": lambda: KilledAt("on_train_batch_end", 1),
    "in the first epoch": lambda: KilledAt("on_train_batch_start", 3),
    "at an epoch's end": lambda: KilledAt("on_train_epoch_end", 8),
    "before a backward pass": lambda: KilledAt("on_before_backward", 13),
    "as a validation begins": lambda: KilledAt("on_validation_start", 20),
    "in a validation": lambda: KilledAt("on_validation_batch_end", 20),
    "while saving": KilledWhileSaving,
    "after the last step": lambda: KilledAt("on_train_batch_end", STEPS),
    "in the last validation": lambda: KilledAt("on_validation_batch_end", STEPS),
}


def train(folder, parts, name, callbacks=(), ckpt_path=None):
    options = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False}
    engine = Engine(default_root_dir=folder, callbacks=list(callbacks), **options)
    model = MODELS[name]()
    engine.fit(model, datamodule=parts, ckpt_path=ckpt_path)
    return model, engine


def in_a_process_of_its_own(function, *arguments):
    """Run a function in a forked process; return its exit status, negative for a signal."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def resume_point(folder):
    return next(Path(folder).rglob("resume.ckpt"), None)


def tensors_of(model):
    return {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}


@pytest.fixture(scope="module")
def unbroken(parts_root, tmp_path_factory):
    """Return a function that trains a model of MODELS without interruption, once."""
    trained = {}

    def get(name):
        if name not in trained:
            trained[name] = tensors_of(train(tmp_path_factory.mktemp("unbroken"), make_parts(parts_root), name)[0])
        return trained[name]

    return get


def killed_and_resumed(folder, parts_root, name, point):
    status = in_a_process_of_its_own(train, folder, make_parts(parts_root), name, [point])
    assert status == -signal.SIGKILL
    return train(folder, make_parts(parts_root), name, ckpt_path=resume_point(folder))[0]


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_training_ends_with_the_same_weights(point, parts_root, tmp_path, unbroken):
    model = killed_and_resumed(tmp_path, parts_root, "LampAE", POINTS[point]())
    torch.testing.assert_close(tensors_of(model), unbroken("LampAE"), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["LampAE with features", "FineTunedGaussian"])
@pytest.mark.parametrize("step", [13, 24])
def test_so_do_the_other_models(name, step, parts_root, tmp_path, unbroken):
    model = killed_and_resumed(tmp_path, parts_root, name, KilledAt("on_before_backward", step))
    torch.testing.assert_close(tensors_of(model), unbroken(name), rtol=0, atol=0)


def test_a_training_killed_twice_ends_with_the_same_weights(parts_root, tmp_path, unbroken):
    killed = [KilledAt("on_train_batch_start", 7)]
    in_a_process_of_its_own(train, tmp_path, make_parts(parts_root), "LampAE", killed)
    killed = [KilledAt("on_before_backward", 31)]
    in_a_process_of_its_own(train, tmp_path, make_parts(parts_root), "LampAE", killed, resume_point(tmp_path))
    newest = max(tmp_path.rglob("resume.ckpt"), key=lambda path: path.stat().st_mtime)
    model, _ = train(tmp_path, make_parts(parts_root), "LampAE", ckpt_path=newest)
    torch.testing.assert_close(tensors_of(model), unbroken("LampAE"), rtol=0, atol=0)


def test_without_a_seed_the_drawn_one_is_kept():
    first, second = RepeatableSteps(), RepeatableSteps()
    first.setup(None, None, "fit")
    second.setup(None, None, "fit")
    assert first.state_dict() != second.state_dict()
    second.load_state_dict(first.state_dict())
    assert first.state_dict() == second.state_dict()


@pytest.mark.parametrize("name", MODELS)
def test_the_first_point_comes_within_a_twentieth_and_the_file_goes_in_the_end(name, parts_root, tmp_path):
    seen = []

    class Looks(Callback):
        def on_train_batch_start(self, trainer, *_):
            path = resume_point(tmp_path)
            seen.append(path and torch.load(path, weights_only=False)["global_step"] == trainer.global_step)

    train(tmp_path, make_parts(parts_root), name, [Looks()])
    assert seen.index(True) <= STEPS / 20
    assert seen.count(True) >= 10
    assert resume_point(tmp_path) is None


class Signals(Callback):
    """Sends a signal to its own process before a step."""

    def __init__(self, number, times=1):
        self.number, self.times = number, times

    def on_before_backward(self, trainer, *_):
        if trainer.global_step == 12:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)
                time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_step_that_is_taken(number, parts_root, tmp_path, unbroken):
    in_a_process_of_its_own(train, tmp_path, make_parts(parts_root), "LampAE", [Signals(number)])
    path = resume_point(tmp_path)
    assert torch.load(path, weights_only=False)["global_step"] == 13
    model, _ = train(tmp_path, make_parts(parts_root), "LampAE", ckpt_path=path)
    torch.testing.assert_close(tensors_of(model), unbroken("LampAE"), rtol=0, atol=0)


def test_an_interrupted_training_says_how_to_go_on(parts_root, tmp_path):
    message = r"after step 13\. Step 13 is saved, .* --ckpt_path .*resume.ckpt"
    with pytest.warns(UserWarning, match=message), pytest.raises(SystemExit):
        train(tmp_path, make_parts(parts_root), "LampAE", [Signals(signal.SIGINT)])
    assert signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_IGN)  # Lightning ignores it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_second_ctrl_c_stops_at_once(parts_root, tmp_path):
    with pytest.warns(UserWarning, match=r"after step 12\. Step 12 is saved"), pytest.raises(SystemExit):
        train(tmp_path, make_parts(parts_root), "LampAE", [Signals(signal.SIGINT, times=2)])
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_training_in_a_thread_leaves_signals_alone(parts_root, tmp_path):
    thread = threading.Thread(target=train, args=(tmp_path, make_parts(parts_root), "LampAE"))
    thread.start()
    thread.join()
    assert next(tmp_path.rglob("model.ckpt"))


def test_a_resumed_training_is_tested_with_its_own_weights(parts_root, tmp_path, make_engine):
    engine = make_engine(callbacks=[Signals(signal.SIGINT)])
    with pytest.raises(SystemExit), pytest.warns(UserWarning, match="To go on"):
        engine.fit(MODELS["LampAE"](), datamodule=make_parts(parts_root))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    model = MODELS["LampAE"]()
    resumed = make_engine()
    tested = resumed.train(model, datamodule=make_parts(parts_root), ckpt_path=resume_point(tmp_path))
    expected = make_engine().test(
        MODELS["LampAE"](),
        datamodule=make_parts(parts_root),
        ckpt_path=resumed.trainer.checkpoint_callback.best_model_path,
    )
    assert tested == expected


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.ckpt"
    whole = WholeFiles(TorchCheckpointIO())
    whole.save_checkpoint({"a": 1}, path)
    whole.inner = FullDisk()
    with pytest.raises(OSError, match="no space left"):
        whole.save_checkpoint({"a": 2}, path)
    assert whole.inner.load_checkpoint(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_saved_where_nothing_is_to_be(parts, tmp_path):
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "default_root_dir": tmp_path}
    Trainer(enable_checkpointing=False, **options).fit(make_lamp_ae(), datamodule=parts)
    assert not list(tmp_path.rglob("*.ckpt"))
