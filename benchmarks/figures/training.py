"""Trains the models of spec.yaml and keeps them: those of the poster's figures and of the finding.

python benchmarks/figures/training.py    (about 25 minutes on one core)

The package's own network, loss, schedule and score in a plain loop on one thread. A model takes 10 to 20 seconds, and
is trained once: its weights at checkpoints, losses and scores are kept in results/figures/models, out of git.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor
from torchvision.io import ImageReadMode, read_image
from torchvision.transforms.v2.functional import resize
from tqdm import tqdm

from anomalib_lamp import LampAE
from anomalib_lamp.auroc import auroc
from anomalib_lamp.landscape import Weights
from anomalib_lamp.optim import configure_optimizer

HERE = Path(__file__).parent
SPEC = yaml.safe_load((HERE / "spec.yaml").read_text())
MODELS = Path("results/figures/models")
CHECKPOINTS = 20  # kept of a training, evenly spread; the last one is its end


class Run(NamedTuple):
    """What tells one training from another; ``rate`` is a factor of the learning rate."""

    loss: str = "l2"
    amplify: bool = False
    batch_size: int = 16
    seed: int = 0
    rate: float = 1.0


@dataclass
class Trained:
    """A model that was trained.

    Attributes:
        run: Which one.
        states: Its network's weights and buffers at checkpoints, the last one the end.
        curve: Training loss and base error of every step, (steps, 2).
        image_auroc: Image AUROC of the end on the test images.
    """

    run: Run
    states: list[Weights]
    curve: Tensor
    image_auroc: float

    def model(self, checkpoint: int = -1) -> LampAE:
        """Return the model at a checkpoint, in evaluation mode."""
        model = make_model(self.run)
        model.model.network.load_state_dict(self.states[checkpoint])
        return model.eval()


class Images(NamedTuple):
    """Images (N, 3, H, W) in [0, 1]: learnt, held out from learning, and tested ones with their labels."""

    learnt: Tensor
    held_out: Tensor
    tested: Tensor
    anomalous: Tensor


def make_model(run: Run) -> LampAE:
    """Return the model of a run before its training."""
    return LampAE(
        targets="pixels",
        image_size=SPEC["data"]["image_size"],
        base_loss=run.loss,
        amplify=run.amplify,
        optimizer=SPEC["optimizer"]["name"],
        seed=run.seed,
        visualizer=False,
        **SPEC["model"],
    )


@cache
def load_images() -> Images:
    """Return the images of the data set; every eighth training image or so is held out."""
    root, count = Path(SPEC["data"]["root"]), SPEC["data"]["held_out"]
    good = sorted((root / "train" / "good").glob("*.png"))
    held_out = good[:: len(good) // count][:count]
    tested = sorted((root / "test").glob("*/*.png"))
    return Images(
        read([path for path in good if path not in held_out]),
        read(held_out),
        read(tested),
        torch.tensor([path.parent.name != "good" for path in tested]),
    )


def read(paths: list[Path]) -> Tensor:
    """Return images, resized."""
    size = [SPEC["data"]["image_size"]] * 2
    return torch.stack([resize(read_image(str(path), ImageReadMode.RGB), size, antialias=True) for path in paths]) / 255


def all_runs() -> list[Run]:
    """Return the runs of the spec, those of the finding first."""
    pairs = product(SPEC["seeds"], (False, True))
    runs = [Run(seed=seed, amplify=amplify) for seed, amplify in pairs]
    runs += [Run(seed=seed, rate=SPEC["rate_of_control"]) for seed in SPEC["seeds"]]
    grid = product(SPEC["seeds_of_grid"], SPEC["losses"], SPEC["batch_sizes"], (False, True))
    runs += [Run(loss, amplify, batch_size, seed) for seed, loss, batch_size, amplify in grid]
    return list(dict.fromkeys(runs))


def trained(run: Run) -> Trained:
    """Return the model of a run, from its file or trained now."""
    file = MODELS / f"{run.loss}-{'lamp' if run.amplify else 'base'}-{run.batch_size}-{run.seed}-{run.rate:g}.pt"
    if not file.exists():
        result = train(run)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        torch.save({**vars(result), "run": tuple(run)}, part)
        part.replace(file)
    content: dict[str, Any] = torch.load(file, weights_only=True)
    return Trained(**{**content, "run": Run(*content["run"])})


def train(run: Run) -> Trained:
    """Train the model of a run, and test its end."""
    torch.set_num_threads(1)
    images, model = load_images(), make_model(run)
    network, loss = model.model.network.train(), model.loss
    generator = torch.Generator().manual_seed(run.seed)
    steps = SPEC["images_seen"] // run.batch_size
    epochs = 1 + SPEC["images_seen"] // len(images.learnt)
    order = torch.cat([torch.randperm(len(images.learnt), generator=generator) for _ in range(epochs)])
    batches = order[: steps * run.batch_size].view(steps, -1)
    optimizers = configure_optimizer(
        list(network.parameters()),
        optimizer=SPEC["optimizer"]["name"],
        learning_rate=run.rate * SPEC["optimizer"]["learning_rate"],
        schedule="cosine",
        total_steps=steps,
        summed_elements=1,
    )
    optimizer, scheduler = optimizers["optimizer"], optimizers["lr_scheduler"]["scheduler"]
    states, curve = [], []
    for number, batch in enumerate(batches, start=1):
        target = images.learnt[batch]
        error = loss.base_error(network(target), target)
        value = loss.reduce(error)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        scheduler.step()
        curve.append((value.item(), error.mean().item()))
        if number * CHECKPOINTS // steps > (number - 1) * CHECKPOINTS // steps:
            states.append({name: value.clone() for name, value in network.state_dict().items()})
    model.eval()
    with torch.inference_mode():
        scores = model.model(images.tested).pred_score.flatten()
    return Trained(run, states, torch.tensor(curve), auroc(images.anomalous, scores))


def main() -> None:
    """Train what is not there yet."""
    for run in tqdm(all_runs()):
        trained(run)


if __name__ == "__main__":
    main()
