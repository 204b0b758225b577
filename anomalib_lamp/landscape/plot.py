"""Drawings of landscapes, several on the same axes and scale; matplotlib is imported only where one is drawn."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalib_lamp.report.plots import STYLE, TEXT_COLOUR, colour

from .sharpness import Perturbed
from .surface import Surface

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOUR_MAP = "viridis"
LEVELS = 14
MOST_POLYGONS = 40  # along each side of a drawn surface
COLUMNS = 3


def contours(
    surfaces: Mapping[str, Surface],
    ruler: str,
    path: np.ndarray | None = None,
    labels: tuple[str, str] = ("first direction", "second direction"),
    columns: int = COLUMNS,
) -> "Figure":
    """Return contours of a loss on planes, with the same axes, levels and colours in every panel.

    Levels are evenly spaced in the logarithm of the loss. Gaps stay white and are counted in the panel's title.

    Args:
        surfaces: Planes by the titles of their panels, all with the ruler.
        ruler: Which loss.
        path: Points of a training (n, 2) to draw over each panel, the last one its end.
        labels: Labels of the axes.
        columns: Panels in a row.

    Raises:
        ValueError: If there is no plane, one is a line, or no loss is finite and above 0.

    Example:
        >>> axis = np.linspace(-1, 1, 5)
        >>> bowl = Surface((axis, axis), {"loss": 0.1 + axis[:, None] ** 2 + axis**2}, {"loss": 0.1})
        >>> figure = contours({"bowl": bowl}, "loss")
    """
    import matplotlib as mpl
    from matplotlib.colors import LogNorm

    low, high = _limits(surfaces, ruler)
    levels = np.geomspace(low, high, LEVELS)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure, panels = _panels(len(surfaces), columns, sharex=True, sharey=True)
        for axes, (title, drawn) in zip(panels, surfaces.items(), strict=True):
            values = np.ma.masked_invalid(drawn.values[ruler].T)
            scale = {"levels": levels, "norm": LogNorm(low, high)}
            filled = axes.contourf(*drawn.axes, values, cmap=COLOUR_MAP, **scale)
            axes.contour(*drawn.axes, values, colors="white", linewidths=0.4, alpha=0.6, **scale)
            if path is None:
                axes.plot(0, 0, "+", color="#d55e00", markersize=7, markeredgewidth=1.4)
            else:
                axes.plot(*path.T, "o-", color="#d55e00", markersize=2.5, linewidth=1)
                axes.plot(*path[-1], "+", color="#d55e00", markersize=8, markeredgewidth=1.6)
            gaps = drawn.gaps[ruler]
            axes.set_title(title + (f" ({gaps} gaps)" if gaps else ""), fontsize=9)
            if path is None:
                axes.set_aspect("equal")
        _label_outer(panels, columns, *labels)
        figure.colorbar(filled, ax=panels, label=ruler, ticks=levels[::3], format=_short, shrink=0.9)
    return figure


def surfaces_3d(surfaces: Mapping[str, Surface], ruler: str, columns: int = COLUMNS) -> "Figure":
    """Return losses as heights over their planes, all with the same axes and the same logarithmic height.

    Args:
        surfaces: Planes by the titles of their panels, all with the ruler.
        ruler: Which loss.
        columns: Panels in a row.

    Raises:
        ValueError: If there is no plane, one is a line, or no loss is finite and above 0.
    """
    import matplotlib as mpl
    from matplotlib.ticker import MaxNLocator

    low, high = (math.log10(limit) for limit in _limits(surfaces, ruler))
    with mpl.rc_context({**STYLE, "grid.color": "#dddddd"}):
        figure, panels = _panels(len(surfaces), columns, subplot_kw={"projection": "3d"}, width=3.1)
        for axes, (title, drawn) in zip(panels, surfaces.items(), strict=True):
            heights = np.log10(np.where(drawn.values[ruler] > 0, drawn.values[ruler], np.nan)).T
            axes.plot_surface(
                *np.meshgrid(*drawn.axes),
                heights,
                cmap=COLOUR_MAP,
                vmin=low,
                vmax=high,
                rcount=MOST_POLYGONS,
                ccount=MOST_POLYGONS,
                linewidth=0.1,
                edgecolor="white",
                antialiased=True,
            )
            axes.set_zlim(low, high)
            axes.set_title(title, fontsize=9, y=0.98)
            axes.tick_params(labelsize=7, pad=-3)
            axes.tick_params(axis="z", pad=2)
            axes.zaxis.set_major_formatter(lambda height, _: f"{10**height:.2g}")
            axes.set_box_aspect((1, 1, 0.8), zoom=0.95)
            for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
                axis.set_pane_color((1, 1, 1, 0))
                axis.set_major_locator(MaxNLocator(4))
    return figure


def lines(surfaces: Mapping[str, Surface], ruler: str, relative: bool = False) -> "Figure":
    """Return a loss along lines, all on the same axes, the loss logarithmic.

    Args:
        surfaces: Lines by name.
        ruler: Which loss.
        relative: Whether to divide each line by its loss at the centre.
    """
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        figure, (axes,) = _panels(1, 1, width=5.2)
        for number, (name, drawn) in enumerate(surfaces.items(), start=1):
            values = drawn.values[ruler] / (drawn.centre[ruler] if relative else 1)
            axes.plot(drawn.axes[0], values, color=colour(number), linewidth=1.5, label=name)
        axes.set_yscale("log")
        axes.set(xlabel="distance, in norms of the filters", ylabel=f"{ruler} / {ruler} at 0" if relative else ruler)
        axes.legend(frameon=False)
    return figure


def perturbations(profiles: Mapping[str, Sequence[Perturbed]]) -> "Figure":
    """Return what random and worst perturbations do to a loss, relative to it, on axes that all share.

    Args:
        profiles: Of each model, by its name, what :func:`~anomalib_lamp.landscape.sharpness` found.
    """
    import matplotlib as mpl
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    with mpl.rc_context(STYLE):
        figure, (axes,) = _panels(1, 1, width=5.2)
        radii: set[float] = set()
        for number, (name, profile) in enumerate(profiles.items(), start=1):
            known = [found for found in profile if found.mean is not None and found.mean > 0]
            shade = colour(number)
            axes.errorbar(
                [found.radius for found in known],
                [found.mean for found in known],
                [1.96 * (found.standard_error or 0) for found in known],
                fmt="o-",
                color=shade,
                markersize=4,
                capsize=2,
                linewidth=1.4,
                label=name,
            )
            worst = [found for found in profile if found.worst is not None and found.worst > 0]
            axes.plot(
                [found.radius for found in worst], [found.worst for found in worst], "^:", color=shade, markersize=4
            )
            radii.update(found.radius for found in profile)
        axes.set(xscale="log", yscale="log", xlabel="size, in norms of the filters", ylabel="loss / loss at 0 - 1")
        axes.set_xticks(sorted(radii))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.plot([], [], "^:", color=TEXT_COLOUR, markersize=4, label="worst within the size")
        axes.legend(frameon=False)
    return figure


def save(figure: "Figure", path: Path) -> list[Path]:
    """Write a figure as PNG and as SVG, the same bytes for the same figure, and return both paths."""
    import matplotlib as mpl

    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what it has settled on stays, instead of being searched for every file
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg")]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "anomalib-lamp"}):
        figure.savefig(files[0], dpi=150, metadata={"Software": None})
        figure.savefig(files[1], metadata={"Date": None})
    return files


def _limits(surfaces: Mapping[str, Surface], ruler: str) -> tuple[float, float]:
    """Return the smallest and the largest loss of all planes, at least a factor of 1.01 apart."""
    if not surfaces or any(len(drawn.axes) != 2 for drawn in surfaces.values()):
        msg = "Expected planes, surfaces of two directions, got a line or nothing. Draw lines with `lines`."
        raise ValueError(msg)
    values = np.concatenate([drawn.values[ruler].ravel() for drawn in surfaces.values()])
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        msg = f"Expected {ruler} to be finite and above 0 somewhere, got gaps only. Take a smaller radius."
        raise ValueError(msg)
    return float(values.min()), max(float(values.max()), 1.01 * float(values.min()))


def _panels(
    count: int, columns: int, width: float = 2.9, height: float = 2.8, **options: Any
) -> tuple["Figure", list[Any]]:
    from matplotlib.figure import Figure

    columns = min(columns, count)
    rows = math.ceil(count / columns)
    if count > 1:
        options.setdefault("squeeze", False)
    figure = Figure(figsize=(width * columns + (0.9 if count > 1 else 0.3), height * rows + 0.3), layout="constrained")
    grid = list(np.atleast_1d(figure.subplots(rows, columns, **options)).flat)
    for axes in grid[count:]:
        axes.remove()
    return figure, grid[:count]


def _label_outer(panels: Sequence[Any], columns: int, x_label: str, y_label: str) -> None:
    for number, axes in enumerate(panels):
        if number % columns == 0:
            axes.set_ylabel(y_label)
        if number + columns >= len(panels):
            axes.set_xlabel(x_label)


def _short(value: float, _: int) -> str:
    return f"{value:.2g}"
