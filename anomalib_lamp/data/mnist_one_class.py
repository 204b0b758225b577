"""MNISTOneClass: one digit is normal, the nine others are anomalous."""

import logging
from functools import partial
from pathlib import Path

from anomalib.data.datamodules.base.image import AnomalibDataModule
from anomalib.data.datasets.base.image import AnomalibDataset
from anomalib.data.utils import LabelName, Split, TestSplitMode, ValSplitMode
from pandas import DataFrame
from torchvision.datasets import MNIST
from torchvision.transforms.v2 import Transform

from .files import make_folder, write_png

logger = logging.getLogger(__name__)


class MNISTOneClassDataset(AnomalibDataset):
    """Digits of one split: the normal one for training, all ten for testing. There are labels, but no masks.

    Args:
        folder: Folder with the pictures of :class:`MNISTOneClass`.
        normal_digit: The digit that is normal.
        split: ``train`` or ``test``.
        augmentations: Augmentations of the images.
    """

    def __init__(
        self,
        folder: Path | str,
        normal_digit: int,
        split: Split | str = Split.TRAIN,
        augmentations: Transform | None = None,
    ) -> None:
        super().__init__(augmentations=augmentations)
        self.category = str(normal_digit)
        split = Split(split)
        digits = [normal_digit] if split == Split.TRAIN else range(10)
        samples = DataFrame(
            [
                {
                    "image_path": str(path),
                    "mask_path": "",
                    "label": str(digit),
                    "label_index": int(LabelName.NORMAL if digit == normal_digit else LabelName.ABNORMAL),
                    "split": split.value,
                }
                for digit in digits
                for path in sorted((Path(folder) / split.value / str(digit)).glob("*.png"))
            ]
        )
        samples.attrs["task"] = "classification"
        self.samples = samples


class MNISTOneClass(AnomalibDataModule):
    """MNIST as ten tasks: training images show one digit only, the 10,000 test images all of them.

    Reads ``<root>/MNIST/raw`` as torchvision does, or downloads it there. Since anomalib reads images from files, all
    digits are written once, as PNG of 28 x 28 pixels, to ``<root>/MNISTOneClass`` (70,000 small files, some seconds).
    Images come as three equal channels. Image AUROC over all ten values of ``normal_digit`` is what papers report.

    Args:
        root: Folder of the data set; must be writable.
        normal_digit: The digit that is normal, 0 to 9.
        train_batch_size: Images in a training batch.
        eval_batch_size: Images in a validation, test or prediction batch.
        num_workers: Worker processes of each data loader.
        val_split_mode: Where the validation images come from: ``same_as_test``, ``from_test``, ``from_train``,
            ``synthetic`` or ``none``.
        val_split_ratio: Share of the images that goes to validation, where a mode splits.
        seed: Seed of the validation split.
        train_augmentations: Augmentations of the training images.
        val_augmentations: Augmentations of the validation images.
        test_augmentations: Augmentations of the test images.
        augmentations: Augmentations of every split that has none of its own.

    Raises:
        ValueError: If ``normal_digit`` is not a digit.
        RuntimeError: In ``prepare_data``, if MNIST is neither in the folder nor can be downloaded.
        OSError: In ``prepare_data``, if the pictures cannot be written.

    Example:
        >>> MNISTOneClass(normal_digit=3).category
        '3'

    Source: LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998.
    """

    def __init__(
        self,
        root: Path | str = "./datasets",
        normal_digit: int = 0,
        train_batch_size: int = 32,
        eval_batch_size: int = 256,
        num_workers: int = 8,
        val_split_mode: ValSplitMode | str = ValSplitMode.SAME_AS_TEST,
        val_split_ratio: float = 0.5,
        seed: int | None = None,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
    ) -> None:
        super().__init__(
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            train_augmentations=train_augmentations,
            val_augmentations=val_augmentations,
            test_augmentations=test_augmentations,
            augmentations=augmentations,
            val_split_mode=val_split_mode,
            val_split_ratio=val_split_ratio,
            test_split_mode=TestSplitMode.FROM_DIR,
            seed=seed,
        )
        if normal_digit not in range(10):
            msg = f"Expected normal_digit to be one of 0 to 9, got {normal_digit!r}."
            raise ValueError(msg)
        self.root = Path(root)
        self.folder = self.root / "MNISTOneClass"
        self.normal_digit = normal_digit
        self.category = str(normal_digit)

    def prepare_data(self) -> None:
        """Write the pictures unless they are there; download MNIST if it is missing."""
        if self.folder.is_dir():
            return
        splits = {"train": self._read(train=True), "test": self._read(train=False)}
        logger.info("Writing the 70,000 digits of MNIST to %s.", self.folder)
        try:
            make_folder(self.folder, self.folder.is_dir, partial(_write_splits, splits))
        except OSError as error:
            msg = (
                f"Expected to write pictures to {self.folder}, got {error}. "
                f"Choose a root that you may write to, and link {self.root / 'MNIST'} into it."
            )
            raise OSError(msg) from error

    def _read(self, *, train: bool) -> MNIST:
        """Return one split as torchvision reads it, downloaded if it is missing."""
        try:
            return MNIST(self.root, train=train, download=False)
        except RuntimeError:
            pass
        try:
            return MNIST(self.root, train=train, download=True)
        except (OSError, RuntimeError) as error:
            msg = (
                f"Expected MNIST in {self.root / 'MNIST' / 'raw'}, or a network to download it, got: {error} "
                "Copy the four IDX files there."
            )
            raise RuntimeError(msg) from error

    def _setup(self, _stage: str | None = None) -> None:
        self.train_data = MNISTOneClassDataset(self.folder, self.normal_digit, Split.TRAIN)
        self.test_data = MNISTOneClassDataset(self.folder, self.normal_digit, Split.TEST)


def _write_splits(splits: dict[str, MNIST], folder: Path) -> None:
    """Write all images of all splits."""
    for split, mnist in splits.items():
        _write(mnist, folder / split)


def _write(mnist: MNIST, folder: Path) -> None:
    """Write every image to ``<folder>/<digit>/<index>.png``."""
    for index, (image, digit) in enumerate(zip(mnist.data.numpy(), mnist.targets.tolist(), strict=True)):
        write_png(folder / str(digit) / f"{index:05}.png", image)
