"""One training in two processes, as Lightning starts them for `--trainer.devices 2`."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import SMALL_PARTS

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
