"""Measures what a few anomalies among the training images cost: image and pixel AUROC with and without them.

python benchmarks/contamination.py --category DATA/MVTecAD/bottle --out benchmarks/results/contamination.json

Both trainings are tested on the same images: those that are not among the contaminated training images. Runs that the
result file already has are skipped. Batches of 16 as in the tables of `compare`; eight minutes a run on two cores.
"""

import json
import random
import tempfile
from pathlib import Path

from anomalib.data import Folder
from anomalib.engine import Engine
from jsonargparse import auto_cli

from anomalib_lamp import LampAE
from anomalib_lamp.compare.environment import describe_run


def main(
    category: Path,
    out: Path,
    fraction: float = 0.05,
    seeds: list[int] = [0, 1, 2],  # noqa: B006
    max_steps: int | None = None,
) -> None:
    """Train with clean and with contaminated images, and write a JSON file after each run.

    Args:
        category: Folder of one category in MVTec AD's layout.
        out: Result file.
        fraction: Part of the contaminated training images that is anomalous, in (0, 0.5).
        seeds: Seeds of model and choice of anomalies.
        max_steps: Length of a training; LampAE's default if not given.
    """
    result = json.loads(out.read_text()) if out.is_file() else describe_run()
    budget = {} if max_steps is None else {"max_steps": max_steps}
    for seed in seeds:
        for name, contaminated in (("clean", False), (f"{fraction:.0%} anomalous", True)):
            key = f"{category.name}, {name}, seed {seed}"
            if key in result:
                continue
            with tempfile.TemporaryDirectory() as folder:
                data = arrange(category, Path(folder) / "data", fraction, seed, contaminated=contaminated)
                engine = Engine(default_root_dir=folder, logger=False)
                metrics = engine.train(LampAE(**budget, seed=seed, visualizer=False), datamodule=data)[0]
            result[key] = {metric: round(metrics[metric], 4) for metric in ("image_AUROC", "pixel_AUROC")}
            out.write_text(json.dumps(result, indent=2) + "\n")
            print(key, result[key], flush=True)


def arrange(category: Path, folder: Path, fraction: float, seed: int, *, contaminated: bool) -> Folder:
    """Link the images so that training has the anomalies drawn by the seed, or does not; testing has neither.

    Args:
        category: Folder in MVTec AD's layout.
        folder: Where the links go.
        fraction: Part of the contaminated training images that is anomalous.
        seed: Seed of the draw.
        contaminated: Whether the drawn anomalies are among the training images.
    """
    good = sorted((category / "train" / "good").glob("*.png"))
    anomalous = sorted(path for path in (category / "test").glob("*/*.png") if path.parent.name != "good")
    drawn = set(random.Random(seed).sample(anomalous, round(fraction / (1 - fraction) * len(good))))
    tested = [path for path in anomalous if path not in drawn]
    link(folder / "train", good + (sorted(drawn) if contaminated else []))
    link(folder / "good", sorted((category / "test" / "good").glob("*.png")))
    link(folder / "bad", tested)
    masks = [category / "ground_truth" / path.parent.name / f"{path.stem}_mask.png" for path in tested]
    link(folder / "masks", masks)
    return Folder(
        name=category.name,
        root=folder,
        normal_dir="train",
        normal_test_dir="good",
        abnormal_dir="bad",
        mask_dir="masks",
        test_split_mode="from_dir",
        val_split_mode="same_as_test",
        train_batch_size=16,
        num_workers=2,
    )


def link(folder: Path, files: list[Path]) -> None:
    """Link files under names that tell their folder."""
    folder.mkdir(parents=True)
    for file in files:
        (folder / f"{file.parent.name}_{file.name}").symlink_to(file.resolve())


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
