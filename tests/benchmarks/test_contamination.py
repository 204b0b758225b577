"""Contaminated and clean training differ by the drawn anomalies only, and are tested on the same images."""

import json
from collections import Counter
from pathlib import Path

import contamination
import pytest

from anomalib_lamp import SyntheticParts


def drawn_parts(root):
    SyntheticParts(root, size=32, num_train=18, num_test_good=3, num_test_per_defect=2).prepare_data()
    return root / "washer"


def files(folder):
    return {path.resolve() for path in folder.iterdir()}


def test_drawn_anomalies_are_learnt_or_left_out_but_never_tested(tmp_path):
    category = drawn_parts(tmp_path)
    for name, contaminated in (("clean", False), ("contaminated", True)):
        contamination.arrange(category, tmp_path / name, 0.1, 0, contaminated=contaminated)
    clean, contaminated = tmp_path / "clean", tmp_path / "contaminated"
    drawn = files(contaminated / "train") - files(clean / "train")
    assert len(drawn) == 2  # of 20 training images
    assert len(files(clean / "train")) == 18
    for folder in (clean, contaminated):
        assert files(folder / "bad") == set((category / "test").glob("*/*.png")) - drawn - files(folder / "good")


def test_masks_belong_to_their_images(tmp_path):
    data = contamination.arrange(drawn_parts(tmp_path), tmp_path / "links", 0.1, 0, contaminated=True)
    data.setup()
    samples = data.test_data.samples
    anomalous = samples[samples.label_index == 1]
    assert len(anomalous) == 6
    for row in anomalous.itertuples():
        image, mask = Path(row.image_path).resolve(), Path(row.mask_path).resolve()
        assert (image.parent.name, f"{image.stem}_mask") == (mask.parent.name, mask.stem)


@pytest.mark.slow
def test_runs_that_are_there_are_kept(tmp_path, capsys):
    out = tmp_path / "result.json"
    arguments = {"category": drawn_parts(tmp_path), "out": out, "fraction": 0.1, "seeds": [0], "max_steps": 1}
    contamination.main(**arguments)
    first = json.loads(out.read_text())
    assert Counter(key.split(", ")[1] for key in first if "seed" in key) == {"clean": 1, "10% anomalous": 1}
    capsys.readouterr()
    contamination.main(**arguments)
    assert capsys.readouterr().out == ""
    assert json.loads(out.read_text()) == first
