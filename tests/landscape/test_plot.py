"""Drawings have the same axes and levels in every panel, show gaps, and refuse what they cannot draw."""

import matplotlib.image
import numpy as np
import pytest

from anomalib_lamp.landscape import Perturbed, Surface, grid, plot

AXIS = grid(1.0, 11)


def bowl(steepness=1.0, gaps=0):
    values = 0.1 + steepness * (AXIS[:, None] ** 2 + AXIS**2)
    values.ravel()[:gaps] = np.nan
    return Surface((AXIS, AXIS), {"loss": values}, {"loss": 0.1})


def test_panels_have_the_same_axes_and_levels():
    figure = plot.contours({"flat": bowl(0.1), "steep": bowl(10.0)}, "loss")
    flat, steep, colours = figure.axes
    assert (flat.get_xlim(), flat.get_ylim()) == (steep.get_xlim(), steep.get_ylim())
    levels = [axes.collections[0].levels for axes in (flat, steep)]
    assert np.array_equal(*levels)
    assert (levels[0][0], levels[0][-1]) == (pytest.approx(0.1), pytest.approx(20.1))
    assert colours.get_ylim() == (pytest.approx(0.1), pytest.approx(20.1))


def test_surfaces_have_the_same_heights():
    figure = plot.surfaces_3d({"flat": bowl(0.1), "steep": bowl(10.0)}, "loss")
    flat, steep = figure.axes
    assert flat.get_zlim() == steep.get_zlim() == (pytest.approx(-1), pytest.approx(np.log10(20.1)))


def test_gaps_are_counted_in_the_title():
    (axes, _) = plot.contours({"bowl": bowl(gaps=3)}, "loss").axes
    assert axes.get_title() == "bowl (3 gaps)"


def test_the_first_direction_goes_to_the_right(tmp_path):
    """The loss is large where the first coordinate is: the right half of the picture is the yellow one."""
    slope = Surface((AXIS, AXIS), {"loss": np.repeat(10.0 ** AXIS[:, None], 11, axis=1)}, {"loss": 1.0})
    png, _ = plot.save(plot.contours({"slope": slope}, "loss"), tmp_path / "slope")
    picture = matplotlib.image.imread(png)
    row = picture[picture.shape[0] // 2]
    yellow = (row[:, 0] > 0.8) & (row[:, 1] > 0.8) & (row[:, 2] < 0.3)
    purple = (row[:, 0] < 0.35) & (row[:, 1] < 0.1) & (row[:, 2] < 0.45) & (row[:, 2] > 0.25)
    assert np.median(np.flatnonzero(purple)) < np.median(np.flatnonzero(yellow))


def test_a_line_may_be_relative_to_its_centre():
    line = Surface((AXIS,), {"loss": 2 + AXIS**2}, {"loss": 2.0})
    (drawn,) = plot.lines({"line": line}, "loss", relative=True).axes[0].get_lines()
    np.testing.assert_allclose(drawn.get_ydata(), 1 + AXIS**2 / 2)


def test_perturbations_that_have_no_figure_are_left_out():
    profile = [Perturbed(0.1, 0.5, 0.1, 2.0), Perturbed(0.5, None, None, None)]
    (axes,) = plot.perturbations({"model": profile}).axes
    assert next(list(line.get_xdata()) for line in axes.get_lines() if len(line.get_xdata())) == [0.1]


@pytest.mark.parametrize(
    ("surfaces", "message"),
    [
        ({}, "Expected planes"),
        ({"line": Surface((AXIS,), {"loss": AXIS}, {"loss": 0.0})}, "Expected planes"),
        ({"gaps": bowl(gaps=121)}, "gaps only"),
    ],
)
def test_what_is_no_plane_is_refused(surfaces, message):
    with pytest.raises(ValueError, match=message):
        plot.contours(surfaces, "loss")
