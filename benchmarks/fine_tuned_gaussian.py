"""Measures FineTunedGaussian: stage 1 beside PaDiM, and what fine-tuning gains where no ImageNet weights exist.

python benchmarks/fine_tuned_gaussian.py --root DATA --out benchmarks/results/fine_tuned_gaussian.json

DATA holds MVTecAD/ and VisA/. Parts that the result file already has are skipped. Not measured here: ImageNet weights.
"""

import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import timm
import torch
from anomalib.data import ImageBatch, Visa
from anomalib.engine import Engine
from anomalib.models import Padim
from jsonargparse import auto_cli
from lightning import seed_everything
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader

from anomalib_lamp import FineTunedGaussian, MVTec
from anomalib_lamp.auroc import auroc
from anomalib_lamp.compare.environment import describe_run
from anomalib_lamp.corruption import FILLINGS, Corruption
from anomalib_lamp.models.fine_tuned_gaussian.fine_tuning import FineTuning, StoppingRule

PATIENCE = 3


def main(
    root: Path,
    out: Path,
    folder: Path = Path("results/fine_tuned_gaussian"),
    backbone: str = "resnet18",
    image_size: int = 128,
    pre_training_steps: int = 600,
    max_steps: int = 300,
    learning_rate: float = 1e-5,
    schedule: Literal["cosine", "constant"] = "cosine",
    seeds: list[int] = [0, 1, 2],  # noqa: B006
) -> None:
    """Run the parts that are missing in the result file, and write it after each.

    Args:
        root: Folder with MVTecAD/ and VisA/.
        out: Result file.
        folder: Where the pre-trained weights are kept.
        backbone: Network of the second part.
        image_size: Side of the images of the second part.
        pre_training_steps: Steps of pre-training, 24 images each.
        max_steps: Steps of fine-tuning, far past the point where the rule stops.
        learning_rate: Learning rate of fine-tuning.
        schedule: Its schedule; a constant rate shows what the stopping rule guards against.
        seeds: Seeds of fine-tuning.
    """
    result = json.loads(out.read_text()) if out.is_file() else describe_run()
    settings = {
        "backbone": backbone,
        "image_size": image_size,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "max_steps": max_steps,
    }
    weights = folder / f"{backbone}_{image_size}_{pre_training_steps}.safetensors"
    parts = {f"stage 1, bottle at 256, {name}": partial(stage_1, root, name) for name in STAGE_1}
    pre_training = f"pre-training, {pre_training_steps} steps on macaroni"
    parts[pre_training] = partial(pre_train, root, weights, backbone, image_size, pre_training_steps)
    for seed in seeds:
        name = ", ".join(f"{key} {value}" for key, value in settings.items())
        parts[f"bottle, {name}, seed {seed}"] = partial(fine_tune, root, weights, settings, seed)
    if not weights.is_file():
        result.pop(pre_training, None)
    for name in [name for name in parts if name not in result]:
        result[name] = parts[name]()
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")
        print(name, json.dumps(result[name]), flush=True)


STAGE_1 = {
    "Padim resnet18": lambda: Padim("resnet18", pre_trained=False, visualizer=False),
    "FineTunedGaussian resnet18": lambda: frozen("resnet18"),
    "FineTunedGaussian efficientnet_b4": lambda: frozen("efficientnet_b4"),
}


def frozen(backbone: str) -> FineTunedGaussian:
    return FineTunedGaussian(backbone, weights="random", fine_tune=False, seed=0, visualizer=False)


def stage_1(root: Path, name: str) -> dict[str, float]:
    """Return time and memory of a fit, measured in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_stage_1, (root, name))


def _stage_1(root: Path, name: str) -> dict[str, float]:
    model = STAGE_1[name]()
    data = MVTec(root=root / "MVTecAD", category="bottle", train_batch_size=16, num_workers=0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as results:
        Engine(accelerator="cpu", default_root_dir=results, logger=False, limit_val_batches=0).fit(
            model, datamodule=data
        )
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    covariances = [buffer for key, buffer in model.named_buffers() if key.endswith(("inv_covariance", "whitening"))]
    return {
        "fit_seconds": round(seconds, 1),
        "peak_rss_mib": peak // 1024,
        "peak_rss_mib_above_the_built_model": (peak - before) // 1024,
        "covariance_mib": round(sum(buffer.nbytes for buffer in covariances) / 2**20, 2),
    }


def pre_train(root: Path, weights: Path, backbone: str, image_size: int, steps: int) -> dict[str, float]:
    """Train the backbone to tell kinds of damage of macaroni apart, none among them; save its weights."""
    seed_everything(0)
    data = Visa(root=root / "VisA", category="macaroni1", num_workers=0)
    data.setup()
    loader = DataLoader(data.train_data, batch_size=32, collate_fn=data.train_data.collate_fn)
    resize = FineTunedGaussian.configure_pre_processor((image_size, image_size)).transform
    images = torch.cat([resize(batch.image) for batch in loader])
    damages = [Corruption(0.0), *(Corruption(kinds=[kind]) for kind in FILLINGS)]
    network = timm.create_model(backbone, pretrained=False, num_classes=len(damages))
    mean, deviation = (torch.tensor(network.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    per_kind = 4
    labels = torch.arange(len(damages)).repeat_interleave(per_kind)
    right: list[float] = []
    for _ in range(steps):
        batch = images[torch.randint(len(images), (len(labels),))]
        damaged = [damage(part) for damage, part in zip(damages, batch.split(per_kind), strict=True)]
        logits = network((torch.cat(damaged) - mean) / deviation)
        optimizer.zero_grad()
        F.cross_entropy(logits, labels).backward()
        optimizer.step()
        schedule.step()
        right.append((logits.argmax(dim=1) == labels).float().mean().item())
    weights.parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), weights)
    return {"accuracy_of_the_last_50_steps": round(sum(right[-50:]) / len(right[-50:]), 3), "kinds": len(damages)}


class Watched(FineTuning):
    """Notes separation and test AUROC at every check. The test images decide nothing."""

    def watch(self, transform: Callable[[Tensor], Tensor], batches: list[ImageBatch]) -> None:
        """Note the AUROC of these test images at every check."""
        self.curve: list[dict[str, float]] = []
        self.images = [transform(batch.image) for batch in batches]
        self.labels = torch.cat([batch.gt_label for batch in batches])

    def check(self, step: int) -> bool:
        """Check as usual, and note the figures once a step."""
        is_best = super().check(step)
        if self.learner is not None and (not self.curve or self.curve[-1]["step"] != step):
            with torch.no_grad():
                distances = torch.cat([self.distance(images) for images in self.images])
            self.curve.append(
                {
                    "step": step,
                    "separation": round(self.separation, 5),
                    "image_AUROC": round(auroc(self.labels, distances), 4),
                }
            )
        return is_best


def fine_tune(root: Path, weights: Path, settings: dict, seed: int) -> dict:
    """Return image AUROC frozen, where the rule stops, and at the end of a training that never stops."""
    common = {**settings, "weights": str(weights), "seed": seed, "visualizer": False}
    data = {"root": root / "MVTecAD", "category": "bottle", "train_batch_size": 16, "num_workers": 0}
    with tempfile.TemporaryDirectory() as results:
        engine = {"accelerator": "cpu", "default_root_dir": results, "logger": False}
        untouched = FineTunedGaussian(**common, fine_tune=False)
        metrics = Engine(**engine).train(untouched, datamodule=MVTec(**data))[0]
        model, parts = FineTunedGaussian(**common), MVTec(**data)
        parts.setup()
        model.fine_tuning = Watched(model.model, model.held_out, model.augmentations, patience=10**6)
        model.fine_tuning.watch(model.pre_processor.transform, list(parts.test_dataloader()))
        Engine(**engine).fit(model, datamodule=parts)
    curve = model.fine_tuning.curve
    stopped_at, kept = stopping_point(curve)
    return {
        "frozen, all images": {key: round(metrics[key], 4) for key in ("image_AUROC", "pixel_AUROC")},
        "frozen, without the held-out images": curve[0]["image_AUROC"],
        "fine-tuned, kept": kept,
        "the rule stops at step": stopped_at,
        "trained past it": curve[-1],
        "curve": curve,
    }


def stopping_point(curve: list[dict[str, float]]) -> tuple[float, dict[str, float]]:
    """Return the step at which the rule stops, and the look whose weights it keeps."""
    rule, kept = StoppingRule(PATIENCE), curve[0]
    for look in curve:
        if rule.is_best(look["separation"]):
            kept = look
        if rule.stop:
            break
    return look["step"], kept


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
