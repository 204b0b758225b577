"""Drawings of a report as SVG text, in the colours of the page; matplotlib is imported only here, when one is drawn."""

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anomalib_lamp.compare.statistics import Ranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# After Okabe and Ito, told apart by colour-blind people too; darker, so that white numbers can be read on them.
COLOURS = ("#0072b2", "#d55e00", "#008f68", "#c0578f", "#a67c00", "#3f97d0", "#7a5fb0", "#7d7d7d")
DASHES = ("", "5 2", "1.5 1.5", "6 2 1.5 2")
TEXT_COLOUR = "#010203"  # stands for the colour of the page's text, which the page decides
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "anomalib-lamp",
    "font.size": 9,
    "text.color": TEXT_COLOUR,
    "axes.edgecolor": TEXT_COLOUR,
    "axes.labelcolor": TEXT_COLOUR,
    "xtick.color": TEXT_COLOUR,
    "ytick.color": TEXT_COLOUR,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": TEXT_COLOUR,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
}


@dataclass(frozen=True)
class Point:
    """A model in a scatter plot, under its number; hollow if it lacks some data sets."""

    number: int
    x: float
    y: float
    complete: bool = True


def colour(number: int) -> str:
    """Return the colour of the model with a number, counted from 1."""
    return COLOURS[(number - 1) % len(COLOURS)]


def dash(number: int) -> str:
    """Return the SVG dash pattern of the model with a number; it changes when the colours begin again."""
    return DASHES[(number - 1) // len(COLOURS) % len(DASHES)]


def scatter(points: Sequence[Point], x_label: str, y_label: str) -> str:
    """Return a scatter plot as SVG: numbered points, the x axis logarithmic if it spans more than a factor of 5.

    Args:
        points: What to draw, at least one; x above 0.
        x_label: Label of the x axis.
        y_label: Label of the y axis.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        for point in points:
            shade = colour(point.number)
            face = shade if point.complete else "none"
            axes.plot(point.x, point.y, "o", markersize=12, color=shade, markerfacecolor=face, alpha=0.9)
            ink = "white" if point.complete else TEXT_COLOUR
            axes.annotate(str(point.number), (point.x, point.y), ha="center", va="center", fontsize=7.5, color=ink)
        if max(point.x for point in points) > 5 * min(point.x for point in points):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(0.08)
        axes.set(xlabel=x_label, ylabel=y_label)
        return svg_of(figure)


def roc(curves: Sequence[tuple[int, Sequence[bool], Sequence[float]]]) -> str:
    """Return ROC curves as SVG.

    Args:
        curves: Number of the model, labels (true for anomalous) and scores; both labels occur.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from sklearn.metrics import roc_curve

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.9, 2.8), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=TEXT_COLOUR, alpha=0.3, linewidth=0.6)
        for number, labels, scores in curves:
            false_positives, true_positives, _ = roc_curve(labels, scores)
            pattern = dash(number)
            style = (0, tuple(map(float, pattern.split()))) if pattern else "-"
            axes.plot(false_positives, true_positives, color=colour(number), linestyle=style, linewidth=1.4)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="false alarms", ylabel="defects found", aspect="equal")
        return svg_of(figure)


def ranks(ranking: Ranking, numbers: Mapping[str, int]) -> str:
    """Return mean ranks as SVG, each with a bar of one critical difference: bars that overlap are not told apart.

    Args:
        ranking: A ranking of at least two models.
        numbers: Number of each model.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    half = (ranking.critical_difference or 0) / 2
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 0.7 + 0.24 * len(ranking.ranks)), layout="constrained")
        axes = figure.subplots()
        for row, (model, value) in enumerate(ranking.ranks.items()):
            shade = colour(numbers[model])
            axes.plot([value - half, value + half], [row, row], color=shade, linewidth=2.5, alpha=0.6)
            axes.plot(value, row, "o", markersize=11, color=shade)
            axes.annotate(str(numbers[model]), (value, row), ha="center", va="center", fontsize=7, color="white")
        ticks = [tick for tick in MaxNLocator(integer=True).tick_values(1, len(ranking.ranks)) if tick >= 1]
        axes.set(xlabel="mean rank (1 is best)", xticks=ticks, yticks=[], ylim=(len(ranking.ranks) - 0.4, -0.6))
        return svg_of(figure)


def svg_of(figure: "Figure") -> str:
    """Return a figure as an SVG element that takes its text colour from the page, without global style or metadata."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
    )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"| version="1.1"|(?<=<g) id="[^"]*"', "", svg)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg.replace("xlink:href", "href").replace(TEXT_COLOUR, "currentColor"))
    prefix = hashlib.sha256(svg.encode()).hexdigest()[:8]  # two drawings on one page may not share an id
    return re.sub(r'( id="| href="#|url\(#)', rf"\g<1>{prefix}-", svg)
