"""Regions beside those of scipy.ndimage."""

import numpy as np
import pytest
from anomalib_lamp_runtime.regions import MAX_REGIONS, find_regions
from scipy import ndimage

GENERATOR = np.random.default_rng(0)
EIGHT_NEIGHBOURS = np.ones((3, 3))


def expected_regions(anomaly_map, threshold):
    labels, _ = ndimage.label(anomaly_map > threshold, EIGHT_NEIGHBOURS)
    slices = ndimage.find_objects(labels)
    return {
        (columns.start, rows.start, columns.stop, rows.stop, float(anomaly_map[labels == index].max()))
        for index, (rows, columns) in enumerate(slices, start=1)
    }


@pytest.mark.parametrize("smoothing", [0.5, 1, 2, 4])
def test_regions_are_connected_components(smoothing):
    found = 0
    for _ in range(20):
        anomaly_map = ndimage.gaussian_filter(GENERATOR.random((30, 40)), smoothing).astype(np.float32)
        anomaly_map = (anomaly_map - anomaly_map.min()) / np.ptp(anomaly_map)
        regions = find_regions(anomaly_map, 0.65, size=(40, 30))
        boxes = {(region.left, region.top, region.right, region.bottom, region.score) for region in regions}
        expected = expected_regions(anomaly_map, 0.65)
        assert boxes == expected if len(expected) <= MAX_REGIONS else boxes < expected
        assert list(regions) == sorted(regions, key=lambda region: -region.score)
        found += len(regions)
    assert found > 20


def test_a_spiral_is_one_region():
    spiral = np.array(
        [
            [1, 1, 1, 1, 1, 1, 1],
            [0, 0, 0, 0, 0, 0, 1],
            [1, 1, 1, 1, 1, 0, 1],
            [1, 0, 0, 0, 1, 0, 1],
            [1, 0, 1, 1, 1, 0, 1],
            [1, 0, 0, 0, 0, 0, 1],
            [1, 1, 1, 1, 1, 1, 1],
        ],
        dtype=np.float32,
    )
    assert len(find_regions(spiral, 0.5, size=(7, 7))) == 1


def test_a_map_of_noise_has_a_limited_number_of_regions():
    anomaly_map = GENERATOR.random((256, 256)).astype(np.float32)
    regions = find_regions(anomaly_map, 0.9, size=(256, 256))
    assert len(regions) == MAX_REGIONS
    assert regions[0].score == anomaly_map.max()


def test_boxes_cover_the_pixels_of_the_photograph_that_a_map_pixel_stands_for():
    anomaly_map = np.zeros((3, 3), np.float32)
    anomaly_map[1, 1] = 1
    (region,) = find_regions(anomaly_map, 0.5, size=(100, 10))
    assert (region.left, region.top, region.right, region.bottom) == (33, 3, 67, 7)
