"""Table 1 of the LAMP poster: MNIST, each digit normal in turn, six batch sizes, with and without LAMP.

python benchmarks/mnist.py --root DATA --out benchmarks/results/mnist.jsonl --processes 2

DATA holds MNIST/raw. Every run appends a line to the result file, and runs that it has are skipped. The package's own
network, loss, schedule and score in a plain loop: a step takes milliseconds, to which anomalib's engine would add as
many. A run uses one thread, on two cores it takes 10 to 40 seconds.
"""

import json
import multiprocessing
import time
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from jsonargparse import auto_cli
from poster_table import interval
from torch import Tensor
from torchvision.datasets import MNIST
from tqdm import tqdm

from anomalib_lamp.auroc import auroc
from anomalib_lamp.compare.environment import describe_run
from anomalib_lamp.compare.statistics import bootstrap_interval
from anomalib_lamp.losses import LampLoss
from anomalib_lamp.models.lamp_ae.normal_errors import border_weights
from anomalib_lamp.models.lamp_ae.torch_model import LampAEModel
from anomalib_lamp.optim import cosine_scale
from anomalib_lamp.precision import has_fast_bfloat16

POSTER = Path(__file__).parent / "poster" / "mnist.csv"
EPOCHS = {1024: 10, 128: 6, 32: 4, 16: 3, 4: 2, 1: 1}  # by batch size: small batches take more steps in an epoch
LEARNING_RATE = 1e-3
HEAD = ["batch size", "base", "LAMP", "LAMP - base", "wins, ties, losses", "pairs", "poster, base", "poster, LAMP"]
MODEL = {
    "architecture": "autoencoder",
    "depth": 3,
    "latent_channels": 1,  # 4 x 4 numbers for a digit
    "map_metric": "l2",
    "smoothing": 0.0,
    "sharp_maps": {},
}


class Run(NamedTuple):
    """What tells one training from another."""

    seed: int
    batch_size: int
    digit: int
    amplify: bool


def main(root: Path, out: Path, processes: int = 2, seeds: list[int] = [0, 1, 2]) -> None:  # noqa: B006
    """Run what the result file lacks, and print the table.

    Args:
        root: Folder of torchvision's MNIST.
        out: Result file, JSON lines.
        processes: How many runs at a time.
        seeds: Seeds of weights and order.
    """
    missing = runs_without_result(out, seeds)
    with multiprocessing.get_context("spawn").Pool(processes, torch.set_num_threads, (1,)) as pool:
        for result in tqdm(pool.imap_unordered(partial(train_and_test, root), missing), total=len(missing)):
            with out.open("a") as file:
                file.write(json.dumps(result) + "\n")
    print(table(read(out)))


def runs_without_result(out: Path, seeds: list[int]) -> list[Run]:
    """Return the runs of the table that the result file lacks, seed by seed."""
    runs = [Run(*values) for values in product(seeds, EPOCHS, range(10), (False, True))]
    there = read(out)[[*Run._fields]].itertuples(index=False, name=None) if out.is_file() else ()
    return sorted(set(runs) - {Run(*row) for row in there}, key=runs.index)


def train_and_test(root: Path, run: Run) -> dict:
    """Train on the images of a digit, test on the 10,000 test images, and return a line of the result file."""
    description, started = describe_run(), time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, digits = load(root, train=True)
    torch.manual_seed(run.seed)
    model = LampAEModel(**MODEL).to(device)
    train(model, images[digits == run.digit].to(device), run)
    images, digits = load(root, train=False)
    scores, normal = score(model, images, device), digits == run.digit
    return {
        **run._asdict(),
        "image_AUROC": auroc(~normal, scores),
        "seconds": round(time.perf_counter() - started, 1),
        "device": device.type,
        **description,
    }


@cache
def load(root: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    """Return images (N, 1, 28, 28) in [0, 1] and digits (N,) of a split."""
    mnist = MNIST(root, train=train)
    return mnist.data[:, None] / 255, mnist.targets


def train(model: LampAEModel, images: Tensor, run: Run) -> None:
    """Train a model to reconstruct images (N, 1, H, W).

    Batch norm over a single image takes away what tells it from others, which at test it does not. So for single images
    its statistics are kept as they are after half of the training, and the other half is learnt with them.
    """
    loss = LampLoss(base="l2", amplify=run.amplify)
    epochs = [torch.randperm(len(images)).split(run.batch_size) for _ in range(EPOCHS[run.batch_size])]
    steps = [batch for epoch in epochs for batch in epoch]
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine_scale(len(steps)))
    for number, step in enumerate(steps):
        if run.batch_size == 1 and number == len(steps) // 2:
            model.network.eval()
        batch = images[step].expand(-1, 3, -1, -1)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=has_fast_bfloat16(images.device)):
            reconstruction = model(batch)
        optimizer.zero_grad()
        loss(reconstruction, batch).backward()
        optimizer.step()
        scheduler.step()


@torch.inference_mode()
def score(model: LampAEModel, images: Tensor, device: torch.device) -> Tensor:
    """Return the mean error of each of the images (N, 1, H, W), which counts less towards the border."""
    model.eval()
    weights = border_weights(*images.shape[-2:], device)
    errors = (model.errors(chunk.expand(-1, 3, -1, -1).to(device))["l2"] for chunk in images.split(1000))
    return torch.cat([(error * weights).mean(dim=(1, 2)).cpu() for error in errors])


def read(results: Path) -> pd.DataFrame:
    """Return the lines of a result file."""
    return pd.read_json(results, lines=True)


def table(results: pd.DataFrame) -> str:
    """Return the table: means over digits and seeds, and differences paired by both, beside the poster's means."""
    rows: list[list] = [HEAD, ["--:"] * len(HEAD)]
    for poster in pd.read_csv(POSTER).itertuples():
        of_size = results[results.batch_size == poster.batch_size]
        pairs = of_size.pivot(index=["digit", "seed"], columns="amplify", values="image_AUROC").dropna()
        if pairs.empty:
            continue
        differences = (pairs[True] - pairs[False]).round(6)
        counts = [(differences > 0).sum(), (differences == 0).sum(), (differences < 0).sum()]
        rows.append(
            [
                poster.batch_size,
                f"{pairs[False].mean():.3f}",
                f"{pairs[True].mean():.3f}",
                interval(differences.mean(), *bootstrap_interval(differences)),
                ", ".join(map(str, counts)),
                len(pairs),
                poster.base,
                poster.lamp,
            ]
        )
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
