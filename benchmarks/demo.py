"""Trains LampAE on drawn parts in about two CPU minutes, prints the metrics and makes a sheet of heat maps.

Run by `make demo`. Writes to ./datasets and ./results; needs neither network nor GPU.
"""

from pathlib import Path

from anomalib.engine import Engine
from jsonargparse import auto_cli
from PIL import Image

from anomalib_lamp import LampAE, SyntheticParts


def main(category: str = "washer", max_steps: int = 300, sheet: Path | None = None) -> None:
    """Train, test, and put one picture of every kind of defect on a sheet.

    Args:
        category: Kind of part: washer, connector, fabric, tablets, bolt, component or steel.
        max_steps: Optimisation steps of 16 images.
        sheet: Where the sheet is saved; beside the single pictures if not given.
    """
    engine = Engine(default_root_dir="results")
    engine.train(
        LampAE(max_steps=max_steps, seed=0),
        datamodule=SyntheticParts(category=category, train_batch_size=16),
    )
    images = Path(engine.trainer.default_root_dir) / "images"
    sheet = sheet or images / "sheet.png"
    make_sheet(images / "test").save(sheet)
    print(f"Heat maps of all test images: {images}\nOne of each kind: {sheet}")


def make_sheet(folder: Path) -> Image.Image:
    """Return the first picture of every subfolder, below each other."""
    pictures = [Image.open(min(kind.glob("*.png"))) for kind in sorted(folder.iterdir()) if kind.is_dir()]
    sheet = Image.new("RGB", (pictures[0].width, sum(picture.height for picture in pictures)))
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
