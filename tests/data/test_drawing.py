"""What is special about the drawn bolt, component and steel: pose, light, dust, normal marks and flaws redrawn."""

import cv2
import numpy as np
import pytest

from anomalib_lamp.data.drawing import PARTS, draw_good, steel
from anomalib_lamp.data.drawing.bolt import draw_bolt, draw_dust
from anomalib_lamp.data.drawing.component import draw_component

SIZE = 128


def scenes(draw, number):
    """Good parts, drawn at the size that gives photographs of 64 pixels."""
    return [draw(np.random.default_rng(i), SIZE) for i in range(number)]


def flaws(category, defect, number):
    """Pairs of a good scene with its defective image and the coverage of the defect."""
    part = PARTS[category]
    for i, scene in enumerate(scenes(part.draw, number)):
        yield (scene, *part.defects[defect].draw(np.random.default_rng(1000 + i), scene))


def axis(coverage):
    """Angle of the longest direction of a region, 0 to 180 degrees; y points down."""
    y, x = np.nonzero(coverage > 0.5)
    _, vectors = np.linalg.eigh(np.cov(np.stack([x, y]).astype(float)))
    return np.degrees(np.arctan2(vectors[1, -1], vectors[0, -1])) % 180


def test_bolts_point_in_every_direction():
    angles = [axis(scene.part) for scene in scenes(draw_bolt, 40)]
    assert np.histogram(angles, bins=4, range=(0, 180))[0].min() >= 4


def test_the_shadow_of_a_bolt_falls_to_the_lower_right_at_any_angle():
    for scene in scenes(draw_bolt, 12):
        ground = scene.image.mean(axis=0)
        below, above = (np.roll(scene.part, (step, step), (0, 1)) > 0.5 for step in (4, -4))
        beside = scene.part < 0.01
        assert ground[below & beside].mean() < ground[above & beside].mean() - 0.03


def test_dust_lies_on_the_ground_of_good_images_in_varying_amount():
    plain = np.full((256, 256), 0.7, np.float32)
    amounts = [(np.abs(draw_dust(np.random.default_rng(i), plain) - plain) > 0.04).mean() for i in range(20)]
    assert min(amounts) > 0
    assert max(amounts) > 4 * min(amounts)
    scene = draw_bolt(np.random.default_rng(0), 256)
    grey = scene.image.mean(axis=0)
    specks = np.abs(grey - cv2.medianBlur(grey, 5)) * (cv2.dilate(scene.part, np.ones((9, 9))) == 0)
    assert (specks > 0.1).any()


@pytest.mark.parametrize("defect", ["flattened", "nicked"])
def test_damage_of_the_thread_leaves_the_neck_as_it_was(defect):
    for scene, image, coverage in flaws("bolt", defect, 8):
        assert (coverage > 0).any()
        assert not (coverage * scene.neck).any()
        assert np.abs(image - scene.image)[:, scene.neck > 0.5].max() < 0.02


def test_a_scratch_of_the_bolt_lies_on_the_neck():
    for scene, image, coverage in flaws("bolt", "scratch", 8):
        assert (coverage <= scene.neck).all()
        assert (image == scene.image)[:, scene.neck == 0].all()


def test_components_lie_alike():
    images = np.stack([draw_good("component", "train", i, image_size=64).mean(axis=2) for i in range(8)])
    black = images < 70
    centres = np.array(
        [np.argwhere(cv2.morphologyEx(b.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5)))).mean(axis=0) for b in black]
    )
    assert np.ptp(centres, axis=0).max() < 0.05 * 64


def tin(scene, image):
    """Where a lead covers the board, much brighter than it in blue."""
    return image[2] - scene.board[2] > 0.15


def test_a_cut_lead_is_shorter_and_a_bent_one_is_not():
    kept = []
    for scene, image, coverage in flaws("component", "cut", 8):
        kept.append(tin(scene, image).sum() / tin(scene, scene.image).sum())
        assert np.abs(image - scene.image)[:, coverage == 0].max() <= 0.02
    assert max(kept) < 1
    assert np.mean(kept) < 0.92
    for scene, image, _ in flaws("component", "bent", 8):
        assert tin(scene, image).sum() == pytest.approx(tin(scene, scene.image).sum(), rel=0.12)


def test_a_turned_component_keeps_its_area_and_moves():
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    for scene, image, _ in flaws("component", "turned", 8):
        before, after = (
            cv2.morphologyEx((seen.max(axis=0) < 0.35).astype(np.uint8), cv2.MORPH_OPEN, disc)
            for seen in (scene.image, image)
        )
        assert float(after.sum()) == pytest.approx(float(before.sum()), rel=0.1)
        assert (before != after).sum() > 0.05 * before.sum()
        leads, moved = tin(scene, scene.image), tin(scene, image)
        assert (leads & moved).sum() < 0.85 * leads.sum()


def test_where_the_component_is_missing_the_board_is_seen():
    for scene, image, coverage in flaws("component", "missing", 4):
        assert (image == scene.board).all()
        assert 0.1 < coverage.mean() < 0.3


def test_drawn_again_without_a_flaw_nothing_changes():
    bolt, component = draw_bolt(np.random.default_rng(3), SIZE), draw_component(np.random.default_rng(3), SIZE)
    assert (bolt.redraw(lambda _u, _v, radius: radius) == bolt.image).all()
    assert (component.redraw(component.leads) == component.image).all()


def test_steel_is_brushed_from_left_to_right_and_scratches_cross_it():
    for scene, _, coverage in flaws("steel", "scratch", 12):
        grey = scene.image.mean(axis=0)
        assert np.abs(np.diff(grey, axis=0)).mean() > 1.5 * np.abs(np.diff(grey, axis=1)).mean()
        if (coverage > 0.5).sum() > 10:
            assert 8 < axis(coverage) < 172


@pytest.mark.parametrize("mark", ["_line", "_smear", "_pit"])
def test_good_steel_has_marks_that_cover_little_and_are_noticeable(mark, monkeypatch):
    with_marks = [scene.image for scene in scenes(steel.draw_steel, 12)]
    draw = getattr(steel, mark)
    monkeypatch.setattr(steel, mark, lambda rng, size: 0 * draw(rng, size))
    without = [scene.image for scene in scenes(steel.draw_steel, 12)]
    covered = np.array([(np.abs(a - b).max(axis=0) > 0.03).mean() for a, b in zip(with_marks, without, strict=True)])
    assert (covered > 0.0005).mean() > 0.5
    assert covered.max() < 0.25


def test_rust_is_redder_than_the_steel():
    for scene, image, coverage in flaws("steel", "rust", 6):
        change = (image - scene.image)[:, coverage > 0.5].mean(axis=1)
        assert change[0] > change[1] > change[2]
