"""Checks the images of a training before it begins, and those of a test or a prediction as they come."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from anomalib.data import AnomalibDataModule, ImageBatch, PredictDataset
from anomalib.data.datasets.base.image import AnomalibDataset
from anomalib.data.utils.image import is_image_file
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import CombinedLoader, rank_zero_warn
from rich.progress import track
from torch import Tensor

from anomalib_lamp.data.image_files import Look, look_at

logger = logging.getLogger(__name__)

MAX_NAMES = 3  # files that a message names
CONSTANT_RANGE = 1e-3  # of values in [0, 1]: a quarter of a grey level; resizing makes rounding errors


class CheckImages(Callback):
    """Refuse images that anomalib would misread, and warn of those that it may misread.

    Before a training every image and mask is decoded once, also those to validate and to test with. Images of a test or
    a prediction are checked as they come: only the heads of their files are read once more. A warning names three files
    at most, and every file once.

    | found | before a training | in a test or a prediction |
    |---|---|---|
    | a file that cannot be read, such as a truncated one | error | its name is logged when reading fails |
    | values that anomalib cuts off: 16-bit grey, floating-point | error | warning |
    | all training images of one colour each | error | - |
    | some images of one colour | warning (training images) | warning |
    | an EXIF orientation other than upright | warning | warning |

    Raises:
        ValueError: Before a training, as the table says.

    Example:
        >>> trainer = Trainer(callbacks=[CheckImages()], logger=False, accelerator="cpu")
    """

    _told: ClassVar[set[str]] = set()  # files named since the last fit began; Lightning makes new callbacks for a test

    def __init__(self) -> None:
        self._seen: list[Look] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the images of a datamodule before a fit."""
        del pl_module
        if stage != "fit":
            return
        self._told.clear()
        datamodule = getattr(trainer, "datamodule", None)
        if isinstance(datamodule, AnomalibDataModule):
            evaluated = [getattr(datamodule, name, None) for name in ("val_data", "test_data")]
            self._check(trainer, datamodule.train_data, evaluated)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the images of data loaders that were given instead of a datamodule."""
        del pl_module
        if not isinstance(getattr(trainer, "datamodule", None), AnomalibDataModule):
            training, evaluated = (list(datasets_of(x)) for x in (trainer.train_dataloader, trainer.val_dataloaders))
            for dataset in training:
                self._check(trainer, dataset, evaluated)

    def _check(self, trainer: Trainer, training: Any, evaluated: Sequence[Any]) -> None:
        """Check the files of a training."""
        learnt = images_of(training)
        images = dict.fromkeys([*learnt, *(path for dataset in evaluated for path in images_of(dataset))])
        masks = dict.fromkeys(path for dataset in (training, *evaluated) for path in masks_of(dataset))
        looks = look_at_all([*images, *masks], progress_bar=trainer.progress_bar_callback is not None)
        of_images = [looks[path] for path in images]
        of_learnt = [looks[path] for path in learnt]
        require_readable(looks.values())
        require_8_bit(of_images)
        require_variation(of_learnt)
        self._warn_of_constant("training images", of_learnt)
        self._warn_of_turned("images", of_images)

    def on_test_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *args: Any) -> None:
        """Look at the images of a batch."""
        del trainer, pl_module, args
        self._seen += look_at_batch(batch)

    def on_predict_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *args: Any) -> None:
        """Look at the images of a batch."""
        self.on_test_batch_start(trainer, pl_module, batch, *args)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *args: Any) -> None:
        """Look at the images of a batch, unless they were checked before the fit that this validation is part of."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self.on_test_batch_start(trainer, pl_module, batch, *args)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn of the images of a test."""
        del trainer, pl_module
        cut_off = self._new(look for look in self._seen if look.is_cut_off)
        if cut_off:
            rank_zero_warn(f"{_cut_off(cut_off)} What is predicted for them means nothing.")
        self._warn_of_constant("images", self._seen)
        self._warn_of_turned("images", self._seen)
        self._seen = []

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn of the images of a prediction."""
        self.on_test_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn of the images of a validation of its own."""
        self.on_test_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Log the name of a file that could not be read, by a test, a prediction or a datamodule that is set up."""
        del pl_module
        if isinstance(exception, OSError | SyntaxError):
            unreadable = next((look for look in map(look_at, files_at_hand(trainer)) if look.error), None)
            if unreadable:
                logger.error("Cannot be read: %s (%s)", unreadable.path, unreadable.error)

    def _warn_of_constant(self, what: str, looks: Sequence[Look]) -> None:
        constant = self._new(look for look in looks if look.is_constant)
        if constant:
            rank_zero_warn(
                f"{len(constant)} of {len(looks)} {what} are of one colour everywhere: {names(constant)}. Replace or "
                "delete them unless they are meant to be."
            )

    def _warn_of_turned(self, what: str, looks: Sequence[Look]) -> None:
        turned = self._new(look for look in looks if look.is_turned)
        if turned:
            rank_zero_warn(
                f"{len(turned)} of {len(looks)} {what} have an EXIF orientation: {names(turned)}. anomalib reads the "
                "pixels as they are stored, sideways, and masks of the upright picture do not fit. Turn the pixels: "
                "PIL.ImageOps.exif_transpose(PIL.Image.open(path)).save(path)."
            )

    def _new(self, looks: Iterable[Look]) -> list[Look]:
        """Return the looks at files that have not been named yet, and take note of them."""
        new = [look for look in looks if look.path not in self._told]
        self._told.update(look.path for look in new)
        return new


def datasets_of(loaders: Any) -> Iterator[Any]:
    """Return the datasets of a data loader, or of a collection of them."""
    for loader in CombinedLoader(loaders, "sequential").flattened:
        yield getattr(loader, "dataset", None)


def files_at_hand(trainer: Trainer) -> Iterator[str]:
    """Return the image and mask files that a trainer reads or whose datamodule draws anomalies on."""
    loaders = {TrainerFn.TESTING: "test_dataloaders", TrainerFn.PREDICTING: "predict_dataloaders"}
    for dataset in datasets_of(getattr(trainer, loaders.get(trainer.state.fn, "val_dataloaders"))):  # type: ignore[arg-type]
        yield from (*images_of(dataset), *masks_of(dataset))
    yield from files_to_draw_on(getattr(trainer, "datamodule", None))


def files_to_draw_on(datamodule: Any) -> Iterator[str]:
    """Return all images in the folders of the training images: anomalib draws synthetic anomalies on some of them."""
    folders = {Path(path).parent for path in images_of(getattr(datamodule, "train_data", None))}
    for folder in sorted(folders):
        yield from image_files(sorted(folder.iterdir()))


def images_of(dataset: Any) -> list[str]:
    """Return the image files of anomalib's datasets; of others, none."""
    if isinstance(dataset, AnomalibDataset):
        return image_files(dataset.samples.image_path)
    return image_files(dataset.image_filenames) if isinstance(dataset, PredictDataset) else []


def masks_of(dataset: Any) -> list[str]:
    """Return the mask files of anomalib's datasets; of others, none."""
    has_masks = isinstance(dataset, AnomalibDataset) and "mask_path" in dataset.samples
    return image_files(dataset.samples.mask_path) if has_masks else []


def image_files(paths: Iterable[Any]) -> list[str]:
    """Return those paths that are of image files; a good image has none or an empty one for its mask."""
    return [str(path) for path in paths if isinstance(path, str | os.PathLike) and is_image_file(os.fspath(path))]


def look_at_all(paths: Sequence[str], *, progress_bar: bool = True) -> dict[str, Look]:
    """Decode all files, as many at a time as there are CPUs."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looking = pool.map(look_at, paths)
        looks = track(looking, "Checking images", len(paths), transient=True, disable=not progress_bar)
        return dict(zip(paths, looks, strict=True))


def look_at_batch(batch: Any) -> list[Look]:
    """Look at the images of a batch without decoding their files again."""
    if not isinstance(batch, ImageBatch) or batch.image is None or batch.image_path is None:
        return []
    looks = [look_at(path, decode=False) for path in batch.image_path]
    constant = are_constant(batch.image).tolist()
    return [replace(look, is_constant=is_constant) for look, is_constant in zip(looks, constant, strict=True)]


def are_constant(images: Tensor) -> Tensor:
    """Return which images (N, C, H, W) in [0, 1] are of one colour everywhere, (N,)."""
    channels = images.flatten(2)
    return (channels.amax(2) - channels.amin(2) < CONSTANT_RANGE).all(1)


def require_readable(looks: Iterable[Look]) -> None:
    """Raise ValueError if a file cannot be read."""
    unreadable = [look for look in looks if look.error]
    if unreadable:
        reasons = "; ".join(f"{look.path} ({look.error})" for look in unreadable[:MAX_NAMES])
        msg = f"Expected files that can be read, got {len(unreadable)} that cannot: {reasons}. Replace or delete them."
        raise ValueError(msg)


def require_8_bit(looks: Iterable[Look]) -> None:
    """Raise ValueError if anomalib would cut off an image's values."""
    cut_off = [look for look in looks if look.is_cut_off]
    if cut_off:
        raise ValueError(_cut_off(cut_off))


def require_variation(looks: Sequence[Look]) -> None:
    """Raise ValueError if all images are of one colour everywhere."""
    if looks and all(look.is_constant for look in looks):
        msg = (
            f"Expected training images that show something, got {len(looks)} of one colour everywhere: {names(looks)}. "
            "Replace them."
        )
        raise ValueError(msg)


def _cut_off(looks: Sequence[Look]) -> str:
    return (
        f"Expected images of 8 bit per channel, got {len(looks)} of 16 bit or floating-point values: {names(looks)}. "
        "anomalib cuts their values off at 0 and 255 and makes them white or black. Convert all to 8 bit on one scale."
    )


def names(looks: Sequence[Look]) -> str:
    """Return the first names and how many more there are.

    Example:
        >>> names([Look(f"{name}.png") for name in "abcde"])
        'a.png, b.png, c.png and 2 more'
    """
    more = f" and {len(looks) - MAX_NAMES} more" if len(looks) > MAX_NAMES else ""
    return ", ".join(look.path for look in looks[:MAX_NAMES]) + more
