"""SyntheticParts: photograph-like parts with defects and masks, drawn from a seed in MVTec AD's folder layout."""

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from anomalib.data.datamodules.base.image import AnomalibDataModule
from anomalib.data.datasets.image.mvtecad import MVTecADDataset
from anomalib.data.utils import Split, TestSplitMode, ValSplitMode
from torchvision.transforms.v2 import Transform

from .drawing import DRAWING_VERSION, PARTS, draw_defective, draw_good
from .files import make_folder, require_readable_root, write_png

logger = logging.getLogger(__name__)


class SyntheticParts(AnomalibDataModule):
    """Photograph-like parts with defects and masks, drawn once from a seed; nothing is downloaded.

    The images go to ``<root>/<category>`` in MVTec AD's folder layout. Good parts vary in light, pose, texture, blur
    and noise. Defects vary from obvious to faint. Image ``i`` depends only on ``drawing_seed``, ``category``, ``size``,
    its split, its defect and ``i``; other versions of NumPy or OpenCV may round some pixels differently.

    Washers, connectors, fabric and tablets have the defects ``scratch``, ``dent``, ``contamination`` and ``missing``.
    Three categories have their own:

    - ``bolt``: a bolt turned freely on ground with dust, which is no defect; ``scratch`` (on the neck), ``flattened``
      (turns of the thread), ``nicked`` (the side of the thread), ``contamination``.
    - ``component``: a transistor that lies alike above a perforated board; ``cut`` and ``bent`` (a lead), ``turned``,
      ``missing``. The masks of the last two cover up to 40 % of the image, all others at most 10 %.
    - ``steel``: a brushed sheet with lines, smears and pits that are no defects; ``scratch`` (across the brushing),
      ``dent``, ``contamination``, ``rust``.

    Difficulty with the default drawing, as image / pixel AUROC on the test images, one run with seed 0 on the CPU
    (``benchmarks/results/quick.jsonl``). LampAE learns 300 steps of 16 images; PaDiM is anomalib 2.7.0's with a
    resnet18 of random weights (``Padim(pre_trained=False)``):

    =========  ===========  ===========
    category   LampAE       PaDiM
    =========  ===========  ===========
    washer     0.93 / 0.97  0.72 / 0.93
    connector  0.98 / 0.99  0.68 / 0.94
    fabric     0.91 / 0.98  0.93 / 0.96
    tablets    0.79 / 0.93  0.54 / 0.79
    =========  ===========  ===========

    Tablets lie at random places and angles and fabric has no fixed pattern; aligned parts are easier. Bolt, component
    and steel were not measured yet.

    Args:
        root: Folder that holds the categories; each category is drawn into its own folder below it.
        category: ``"washer"``, ``"connector"``, ``"fabric"``, ``"tablets"``, ``"bolt"``, ``"component"`` or
            ``"steel"``.
        size: Pixels along each side of the square images, 32 or more.
        num_train: Number of good training images.
        num_test_good: Number of good test images.
        num_test_per_defect: Number of test images with each of the category's four defects.
        drawing_seed: Seed of the drawing; another one gives other images of the same parts.
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
        ValueError: If the category is unknown, a size or count is too small, or (in ``prepare_data``) the root is
            not in printable ASCII characters or the folder holds a different drawing.

    Example:
        >>> from tempfile import mkdtemp
        >>> data = SyntheticParts(
        ...     mkdtemp(), size=32, num_train=2, num_test_good=1, num_test_per_defect=1, train_batch_size=2
        ... )
        >>> data.prepare_data()
        >>> data.setup()
        >>> next(iter(data.train_dataloader())).image.shape
        torch.Size([2, 3, 32, 32])
    """

    makes_its_root: ClassVar[bool] = True  # its folder need not be there before

    def __init__(
        self,
        root: Path | str = "./datasets/SyntheticParts",
        category: str = "washer",
        size: int = 256,
        num_train: int = 80,
        num_test_good: int = 20,
        num_test_per_defect: int = 8,
        drawing_seed: int = 0,
        train_batch_size: int = 32,
        eval_batch_size: int = 32,
        num_workers: int = 0,
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
        if category not in PARTS:
            msg = f"Expected category to be one of {', '.join(PARTS)}. Got {category!r}."
            raise ValueError(msg)
        counts = {"num_train": num_train, "num_test_good": num_test_good, "num_test_per_defect": num_test_per_defect}
        for name, value, least in [("size", size, 32), *((name, n, 1) for name, n in counts.items())]:
            if value < least:
                msg = f"Expected {name} of {least} or more. Got {value}. Set {name}={least} or leave it out."
                raise ValueError(msg)
        self.root = Path(root)
        self.category = category
        self.drawing: dict[str, Any] = {
            "version": DRAWING_VERSION,
            "category": category,
            "size": size,
            **counts,
            "drawing_seed": drawing_seed,
        }

    def prepare_data(self) -> None:
        """Draw the category's images unless they are there."""
        require_readable_root(self.root, self.category)
        folder = self.root / self.category
        if self._is_drawn(folder):
            return
        logger.info("Drawing %s into %s, about ten seconds for the default number of images.", self.category, folder)
        make_folder(folder, partial(self._is_drawn, folder), self.draw)

    def _is_drawn(self, folder: Path) -> bool:
        if not folder.is_dir() or not any(folder.iterdir()):
            return False
        note = folder / "drawn.json"
        found = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else "something else (no drawn.json)"
        if found == self.drawing:
            return True
        msg = (
            f"Expected {folder} to hold the drawing {self.drawing}. Got {found}. "
            f"Choose another root, or delete the folder to have it drawn anew."
        )
        raise ValueError(msg)

    def draw(self, folder: Path) -> None:
        """Draw all images and masks into a folder."""
        asked = self.drawing
        seed, size = asked["drawing_seed"], asked["size"]
        for split, number in (("train", asked["num_train"]), ("test", asked["num_test_good"])):
            for i in range(number):
                write_png(folder / split / "good" / f"{i:03}.png", draw_good(self.category, split, i, seed, size))
        for defect in PARTS[self.category].defects:
            for i in range(asked["num_test_per_defect"]):
                _, image, mask = draw_defective(self.category, defect, i, seed, size)
                write_png(folder / "test" / defect / f"{i:03}.png", image)
                write_png(folder / "ground_truth" / defect / f"{i:03}_mask.png", mask)
        (folder / "drawn.json").write_text(json.dumps(asked, indent=2) + "\n", encoding="utf-8")

    def _setup(self, _stage: str | None = None) -> None:
        self.train_data = MVTecADDataset(root=self.root, category=self.category, split=Split.TRAIN)
        self.test_data = MVTecADDataset(root=self.root, category=self.category, split=Split.TEST)
