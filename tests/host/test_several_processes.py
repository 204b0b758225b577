"""One training in two processes, as Lightning starts them for `--trainer.devices 2`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import SMALL_PARTS

LEARNS = """
import sys

import torch
from anomalib.engine import Engine
from anomalib_lamp import LampAE, SyntheticParts
from torch import nn

processes, root, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
parts = SyntheticParts(root=root, size=64, num_train=24, num_test_good=4, num_test_per_defect=1, num_workers=0,
                       train_batch_size=8 // processes)
model = LampAE(targets="pixels", width=4, depth=3, image_size=64, max_steps=20, corruption_strength=0.0,
               furthest_shift=0.0, mixed_precision=False, seed=0, visualizer=False)
for block in list(model.model.network.modules()):
    for name, layer in block.named_children():
        if isinstance(layer, nn.BatchNorm2d):
            setattr(block, name, nn.Identity())
strategy = "ddp" if processes > 1 else "auto"
engine = Engine(accelerator="cpu", devices=processes, strategy=strategy, default_root_dir=out, logger=False)
engine.fit(model, datamodule=parts)
if engine.trainer.is_global_zero:
    torch.save(model.model.network.state_dict(), out + "/weights.pt")
"""
COMMAND = Path(sys.executable).parent / "anomalib"


@pytest.mark.slow
def test_lamp_ae_learns_in_two_processes(parts_root, tmp_path):
    """With batches of one image, many batches hold nothing but a held-out image: no process may wait forever."""
    arguments = {
        "--model": "LampAE",
        **{f"--model.{key}": value for key, value in {"width": 4, "depth": 3, "image_size": 64, "seed": 0}.items()},
        "--model.false_positive_rate": 0.1,
        "--data": "SyntheticParts",
        "--data.root": parts_root,
        **{f"--data.{key}": value for key, value in {**SMALL_PARTS, "train_batch_size": 1}.items()},
        "--trainer.accelerator": "cpu",
        "--trainer.devices": 2,
        "--trainer.strategy": "ddp",
        "--trainer.max_steps": 30,
    }
    command = [COMMAND, "train", *(str(word) for pair in arguments.items() for word in pair)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "distributed_backend=gloo" in done.stderr + done.stdout
    checkpoint = torch.load(next(tmp_path.rglob("model.ckpt")), weights_only=False)
    assert checkpoint["global_step"] == 30


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path):
    """The same images in every step, held-out ones or not, each counted once; batch norm and damage left out."""
    script, root = tmp_path / "learns.py", tmp_path / "parts"
    script.write_text(LEARNS)
    weights = {}
    for processes in (1, 2):
        out = tmp_path / str(processes)
        out.mkdir()
        command = [sys.executable, script, str(processes), root, out]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        weights[processes] = torch.load(out / "weights.pt")
    torch.testing.assert_close(weights[1], weights[2], rtol=0, atol=1e-4)
