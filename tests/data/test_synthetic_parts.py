"""SyntheticParts: layout, determinism, exact masks, drawing once, errors and batches."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from anomalib.data.datasets.image.mvtecad import MVTecADDataset

from anomalib_lamp.data import synthetic_parts
from anomalib_lamp.data.drawing import PARTS, draw_defective, draw_good
from anomalib_lamp.data.files import write_png
from anomalib_lamp.data.synthetic_parts import SyntheticParts

SMALL = {"size": 64, "num_train": 3, "num_test_good": 2, "num_test_per_defect": 1}


KINDS = [(category, defect) for category, part in PARTS.items() for defect in part.defects]

LARGE = {("component", "turned"), ("component", "missing")}  # the whole part is elsewhere or gone
STRIPS = {  # means of eight horizontal strips of what version 1 drew first, at 64 pixels
    ("washer", "good"): [172.59, 164.41, 151.54, 158.16, 164.09, 162.84, 171.41, 198.25],
    ("washer", "scratch"): [193.52, 163.2, 151.02, 167.39, 162.74, 137.84, 136.41, 158.36],
    ("connector", "good"): [127.39, 131.2, 92.93, 61.12, 62.86, 97.31, 135.14, 131.62],
    ("connector", "dent"): [144.04, 146.42, 112.8, 68.25, 71.56, 98.41, 143.98, 140.26],
    ("fabric", "good"): [112.42, 116.65, 118.34, 121.24, 122.3, 120.06, 117.32, 117.34],
    ("fabric", "contamination"): [121.27, 128.64, 131.84, 130.81, 128.7, 131.1, 129.5, 128.72],
    ("tablets", "good"): [95.92, 96.64, 104.38, 104.09, 109.11, 107.72, 108.87, 87.26],
    ("tablets", "missing"): [95.8, 98.19, 92.9, 115.58, 95.86, 106.98, 101.7, 94.49],
}


def drawn(root: Path, **changes) -> dict[str, bytes]:
    """Draw a small data set and read every image of it."""
    data = SyntheticParts(root, **{**SMALL, **changes})
    data.prepare_data()
    folder = root / data.category
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def test_layout_is_mvtec_ads(tmp_path):
    files = set(drawn(tmp_path))
    expected = {f"train/good/{i:03}.png" for i in range(3)} | {f"test/good/{i:03}.png" for i in range(2)}
    for defect in ("scratch", "dent", "contamination", "missing"):
        expected |= {f"test/{defect}/000.png", f"ground_truth/{defect}/000_mask.png"}
    assert files == expected
    assert [path.name for path in tmp_path.iterdir()] == ["washer"]  # nothing unfinished is left behind
    train = MVTecADDataset(root=tmp_path, category="washer", split="train")
    test = MVTecADDataset(root=tmp_path, category="washer", split="test")
    assert (len(train), len(test)) == (3, 6)
    for item in test:
        by_hand = cv2.imread(item.image_path)[..., ::-1]
        assert (np.rint(255 * item.image.permute(1, 2, 0).numpy()) == by_hand).all()
        assert bool(item.gt_label) == ("good" not in item.image_path)
        assert bool(item.gt_mask.any()) == bool(item.gt_label)


@pytest.mark.parametrize(
    ("category", "defects"),
    [
        ("bolt", {"scratch", "flattened", "nicked", "contamination"}),
        ("component", {"cut", "bent", "turned", "missing"}),
        ("steel", {"scratch", "dent", "contamination", "rust"}),
    ],
)
def test_a_category_has_its_own_defects(tmp_path, category, defects):
    files = set(drawn(tmp_path, category=category))
    assert {name.split("/")[1] for name in files if name.startswith("test")} == {"good"} | defects
    assert {name for name in files if name.startswith("ground_truth")} == {
        f"ground_truth/{defect}/000_mask.png" for defect in defects
    }


def test_files_hold_the_drawings_in_rgb(tmp_path):
    drawn(tmp_path, category="tablets")
    _, image, mask = draw_defective("tablets", "dent", 0, image_size=64)
    assert (cv2.imread(str(tmp_path / "tablets/test/dent/000.png"))[..., ::-1] == image).all()
    assert (cv2.imread(str(tmp_path / "tablets/ground_truth/dent/000_mask.png"), 0) == mask).all()
    red, _, blue = image.reshape(-1, 3).max(axis=0).astype(int) - image.reshape(-1, 3).min(axis=0)
    assert red > 0
    assert blue > 0
    assert (image[..., 0].astype(int) - image[..., 2] > 60).any()  # the caps are red, not blue
    assert not (image[..., 2].astype(int) - image[..., 0] > 60).any()


def test_same_arguments_same_bytes(tmp_path):
    assert drawn(tmp_path / "a") == drawn(tmp_path / "b")


def test_global_random_state_is_neither_used_nor_changed():
    np.random.seed(1)  # noqa: NPY002
    first, state = draw_good("fabric", "train", 0, image_size=64), np.random.get_state()[1].copy()  # noqa: NPY002
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert (draw_good("fabric", "train", 0, image_size=64) == first).all()


@pytest.mark.parametrize(("category", "kind"), STRIPS)
def test_drawings_stay_as_they_were(category, kind):
    """Other versions of NumPy or OpenCV may round some pixels differently; another drawing differs in every strip."""
    if kind == "good":
        image = draw_good(category, "train", 0, image_size=64)
    else:
        image = draw_defective(category, kind, 0, image_size=64)[1]
    assert image.reshape(8, -1).mean(axis=1) == pytest.approx(STRIPS[category, kind], abs=0.03)


def test_other_drawing_seed_gives_other_images(tmp_path):
    a, b = drawn(tmp_path / "a"), drawn(tmp_path / "b", drawing_seed=1)
    assert a.keys() == b.keys()
    assert all(a[name] != b[name] for name in a if not name.startswith("ground_truth"))


def test_no_two_images_are_the_same(tmp_path):
    images = [content for name, content in drawn(tmp_path).items() if not name.startswith("ground_truth")]
    assert len(set(images)) == len(images)


def test_growing_the_counts_keeps_the_earlier_images(tmp_path):
    few = drawn(tmp_path / "few")
    more = drawn(tmp_path / "more", num_train=5, num_test_good=3, num_test_per_defect=2)
    assert len(more) == 5 + 3 + 2 * 4 * 2
    assert {name: more[name] for name in few} == few


@pytest.mark.parametrize(("category", "defect"), KINDS)
@pytest.mark.parametrize("image_size", [32, 64, 101])
def test_defect_changes_the_image_inside_the_mask_and_nowhere_else(category, defect, image_size):
    for index in range(10 if image_size == 32 else 3):  # a small dark part is the hardest to harm noticeably
        clean, defective, mask = draw_defective(category, defect, index, image_size=image_size)
        assert clean.shape == defective.shape == (image_size, image_size, 3)
        assert clean.dtype == defective.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 255}
        changed = (clean != defective).any(axis=2)
        assert not changed[mask == 0].any()
        assert changed[mask == 255].mean() > 0.5
        assert 0.0005 <= (mask == 255).mean() <= (0.4 if (category, defect) in LARGE else 0.1)
        size_of_change = np.abs(clean.astype(int) - defective).max(axis=2)[mask == 255].mean()
        assert size_of_change > 7.5  # the door is 8 grey levels before rounding


@pytest.mark.parametrize(("category", "defect"), [kind for kind in KINDS if kind[0] in {"washer", "connector"}])
def test_defects_lie_on_the_part(category, defect):
    """The table around a washer or a connector is bright or framed: its corners and rim stay as they were."""
    on_part = np.zeros((64, 64), bool)
    y, x = (np.mgrid[:64, :64] + 0.5) / 64 - 0.5
    if category == "washer":
        on_part = np.abs(np.hypot(x, y) - 0.265) < 0.105 + 0.06
    else:
        on_part = (np.abs(x) < 0.41 + 0.06) & (np.abs(y) < 0.19 + 0.07)
    for index in range(5):
        mask = draw_defective(category, defect, index, image_size=64)[2]
        assert on_part[mask == 255].all()


def test_good_parts_differ_in_light_and_pose():
    images = np.stack([draw_good("washer", "train", i, image_size=64) for i in range(12)]).astype(float)
    brightness = images.mean(axis=(1, 2, 3))
    assert brightness.std() > 3
    y, x = np.mgrid[:64, :64]
    holes = []
    for image in images:
        grey = image.mean(axis=2) > image.mean()
        disc = grey & (np.hypot(x - 31.5, y - 31.5) < 16)  # the table seen through the hole
        holes.append((x[disc].mean(), y[disc].mean()))
    assert np.std(holes, axis=0).min() > 0.15
    assert np.abs(np.mean(holes, axis=0) - 31.5).max() < 1.5


def test_drawn_once(tmp_path):
    drawn(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    SyntheticParts(tmp_path, **SMALL, train_batch_size=7, seed=3).prepare_data()  # loading options are not drawing's
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_other_category_lies_beside_the_first(tmp_path):
    drawn(tmp_path)
    drawn(tmp_path, category="fabric")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fabric", "washer"]


@pytest.mark.parametrize("change", [{"num_train": 4}, {"drawing_seed": 9}, {"size": 32}])
def test_folder_drawn_with_other_arguments_is_refused_untouched(tmp_path, change):
    before = drawn(tmp_path)
    with pytest.raises(ValueError, match="another root, or delete the folder") as error:
        SyntheticParts(tmp_path, **{**SMALL, **change}).prepare_data()
    ((name, value),) = change.items()
    default = {**SMALL, "drawing_seed": 0}[name]
    assert str(tmp_path / "washer") in str(error.value)
    assert f"{name!r}: {value}" in str(error.value)
    assert f"{name!r}: {default}" in str(error.value)
    assert drawn(tmp_path) == before


def test_strangers_folder_is_refused_untouched(tmp_path):
    (tmp_path / "washer").mkdir()
    (tmp_path / "washer" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"no drawn\.json"):
        SyntheticParts(tmp_path, **SMALL).prepare_data()
    assert [path.name for path in tmp_path.rglob("*")] == ["washer", "mine.txt"]


def test_broken_off_drawing_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic_parts, "draw_defective", full_disk)
    with pytest.raises(OSError, match="No space left"):
        SyntheticParts(tmp_path, **SMALL).prepare_data()
    assert [path.name for path in tmp_path.iterdir()] == [".washer.lock"]


def test_an_image_that_cannot_be_encoded_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "imencode", lambda *_: (False, None))
    with pytest.raises(OSError, match=r"can be written as PNG to .*a\.png, got shape \(2, 3\) of uint8"):
        write_png(tmp_path / "a.png", np.zeros((2, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_a_drawing_that_was_killed_is_cleaned_up_by_the_next(tmp_path):
    drawn(tmp_path / "whole")
    (tmp_path / "parts").mkdir()
    script = (
        "import os, sys; from anomalib_lamp.data import synthetic_parts as s\n"
        "s.draw_defective = lambda *_: os.kill(os.getpid(), 9)\n"
        f"s.SyntheticParts({str(tmp_path / 'parts')!r}, **{SMALL}).prepare_data()"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == -9
    assert list((tmp_path / "parts" / ".washer.part").rglob("*.png"))
    assert drawn(tmp_path / "parts") == drawn(tmp_path / "whole")
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["washer"]


def test_two_at_the_same_time_draw_once(tmp_path, monkeypatch):
    """The second comes while the first is drawing, waits, and finds the complete data set."""
    begun, write, errors = threading.Event(), SyntheticParts.draw, []

    def draw(self, folder):
        assert not begun.is_set()
        begun.set()
        write(self, folder)

    monkeypatch.setattr(SyntheticParts, "draw", draw)

    def work():
        try:
            SyntheticParts(tmp_path, **SMALL).prepare_data()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    threads[0].start()
    assert begun.wait(timeout=30)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [path.name for path in tmp_path.iterdir()] == ["washer"]
    assert json.loads((tmp_path / "washer" / "drawn.json").read_text())["num_train"] == 3
    assert len(list(tmp_path.rglob("*.png"))) == 3 + 2 + 2 * 4


def test_unknown_category_lists_the_known():
    with pytest.raises(ValueError, match=r"washer, connector, fabric, tablets, bolt, component, steel.*'bottle'"):
        SyntheticParts(category="bottle")


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [("size", 31, 32), ("num_train", 0, 1), ("num_test_good", 0, 1), ("num_test_per_defect", -1, 1)],
)
def test_too_small_a_number_is_refused(name, value, least):
    with pytest.raises(ValueError, match=f"Expected {name} of {least} or more. Got {value}. Set {name}={least}"):
        SyntheticParts(**{name: value})


@pytest.mark.parametrize("category", PARTS)
def test_batches(tmp_path, category):
    data = SyntheticParts(
        tmp_path, category, **SMALL, train_batch_size=2, eval_batch_size=3, val_split_mode="from_test"
    )
    data.prepare_data()
    data.setup()
    assert data.name == "SyntheticParts"
    assert data.category == category
    assert len(data.train_data) == 3
    assert len(data.val_data) + len(data.test_data) == 6
    train, test = next(iter(data.train_dataloader())), next(iter(data.test_dataloader()))
    assert train.image.shape == (2, 3, 64, 64)
    assert test.image.shape == (len(test.gt_label), 3, 64, 64)
    assert test.gt_mask.shape == (len(test.gt_label), 64, 64)
    assert test.gt_mask.dtype == torch.bool
    for image in (train.image, test.image):
        assert image.min() >= 0
        assert 0.5 < image.max() <= 1


def test_default_validation_set_is_the_test_set(tmp_path):
    data = SyntheticParts(tmp_path, **SMALL)
    data.prepare_data()
    data.setup()
    assert sorted(data.val_data.samples.image_path) == sorted(data.test_data.samples.image_path)
    assert len(data.val_data) == 6
