"""The page of a landscape: sharpness as tables, contours, surfaces and perturbations as drawings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from anomalib_lamp.report.elements import DASH, Cell, Column, Figure, Page, Section, Table, number, text
from anomalib_lamp.report.plots import svg_of

from . import plot
from .directions import Trajectory
from .sharpness import Sharpness
from .surface import Surface

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

METHOD = (
    "base is the loss that the model is trained with; LAMP is the same with -log(1 - L) for every error L.",
    "Of LampAE both are means over all errors. Both are measured at the same weights, in the same pass.",
    "Weights move along random directions whose filters are as long as the model's own (Li et al. 2018).",
    "The draw is the same for all models. Distances are in norms of the filters. Biases and norms do not move.",
    "Norms keep the statistics of the training. Damage and all else that is drawn is the same at every point.",
    "All panels of a drawing have the same axes, levels and colours. Gaps are points without a finite loss.",
)
SHARPNESS = (
    "H is the Hessian over all weights, T the norm of each weight's filter.",
    "λ1(THT) / L and trace(THT) / L depend neither on the scale of the loss nor on that of a filter.",
    "|T grad| / L tells whether the weights are at a minimum: it is 0 there.",
    "+ r: by what share of itself the loss grows when every filter moves by r of its norm in a random direction.",
    "worst r: the largest growth that ascent finds when no filter moves by more than r of its norm.",
    "2 L at: the distance in random directions at which the loss is doubled.",
    "Means over directions, ± half of their 95 % intervals. These are about directions, not about new trainings:",
    "to compare two ways of training, train several seeds of each. Sharpness need not go together with detection.",
)


@dataclass(frozen=True)
class Findings:
    """What was measured of checkpoints, by their labels.

    Attributes:
        planes: Of each checkpoint.
        sharpness: By images (learnt, held out), then checkpoint, then ruler.
        trajectory: The plane of a training, its way, and what it explains; ``None`` without one.
        facts: Label and value of what is told under the title.
        notes: What else is to be said.
    """

    planes: Mapping[str, Surface]
    sharpness: Mapping[str, Mapping[str, Mapping[str, Sharpness]]] = field(default_factory=dict)
    trajectory: tuple[Surface, Trajectory] | None = None
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def drawings_of(found: Findings) -> dict[str, tuple["Drawing", str]]:
    """Return the figures and their captions, by the names of their files."""
    drawings = {}
    for ruler in next(iter(found.planes.values())).values:
        drawings[f"contours-{ruler}"] = (plot.contours(found.planes, ruler), f"{ruler} on the plane of two directions")
        drawings[f"surface-{ruler}"] = (plot.surfaces_3d(found.planes, ruler), f"The same as heights: {ruler}")
    lines = {label: _middle_line(plane) for label, plane in found.planes.items()}
    for ruler in next(iter(lines.values())).values:
        caption = f"{ruler} along the first direction, relative to its value at the weights"
        drawings[f"line-{ruler}"] = (plot.lines(lines, ruler, relative=True), caption)
    for images, models in found.sharpness.items():
        for ruler in next(iter(models.values())):
            profiles = {label: of_rulers[ruler].perturbed for label, of_rulers in models.items()}
            caption = f"{ruler}, {images} images: growth of the loss by random and by the worst perturbations"
            drawings[f"perturbations-{images.replace(' ', '-')}-{ruler}"] = (plot.perturbations(profiles), caption)
    if found.trajectory is not None:
        plane, way = found.trajectory
        labels = tuple(f"main direction {n} ({share:.0%})" for n, share in enumerate(way.explained, start=1))
        for ruler in plane.values:
            drawn = plot.contours({"training": plane}, ruler, way.coordinates, labels)  # type: ignore[arg-type]
            caption = f"The training in the plane in which it moved most; {ruler}, statistics of norms as at its end"
            drawings[f"trajectory-{ruler}"] = (drawn, caption)
    return drawings


def _middle_line(plane: Surface) -> Surface:
    """Return the line along the first direction."""
    middle = int(np.abs(plane.axes[1]).argmin())
    return Surface(plane.axes[:1], {name: values[:, middle] for name, values in plane.values.items()}, plane.centre)


def make_page(found: Findings, drawings: Mapping[str, tuple["Drawing", str]]) -> Page:
    """Return the page."""
    count = len(found.planes)
    sections = [
        Section("method", "How it was measured", (*METHOD, *found.notes), (_planes_table(found.planes),)),
    ]
    if found.sharpness:
        tables = tuple(
            sharpness_table(f"{ruler}, {images} images", {label: of[ruler] for label, of in models.items()})
            for images, models in found.sharpness.items()
            for ruler in next(iter(models.values()))
        )
        reasons = {
            of.without_curvature for models in found.sharpness.values() for r in models.values() for of in r.values()
        }
        notes = tuple(f"No curvature: {reason}." for reason in sorted(reasons - {""}))
        sections.append(Section("sharpness", "Sharpness", (*SHARPNESS, *notes), tables))
    for name, title, prefixes in (
        ("perturbations", "Perturbations", ("perturbations", "line")),
        ("contours", "Contours", ("contours",)),
        ("surfaces", "Surfaces", ("surface",)),
        ("training", "Training", ("trajectory",)),
    ):
        figures = tuple(
            Figure(svg_of(figure), caption) for key, (figure, caption) in drawings.items() if key.startswith(prefixes)
        )
        if figures:
            sections.append(Section(name, title, figures=figures, visual=True))
    title = f"Loss landscape of {count} checkpoint{'' if count == 1 else 's'}"
    facts = tuple((label, text(value)) for label, value in found.facts)
    return Page(title, facts, tuple(sections), {}, kind="Loss landscape", command="anomalib-lamp landscape")


def _planes_table(planes: Mapping[str, Surface]) -> Table:
    """Return each plane's losses at the weights, its gaps, and how far the rulers agree."""
    rulers = list(next(iter(planes.values())).values)
    columns = [Column("checkpoint", numeric=False)]
    columns += [Column(label) for ruler in rulers for label in (f"{ruler} at the weights", f"gaps of {ruler}")]
    pairs = [(ruler, rulers[0]) for ruler in rulers[1:]]
    columns += [Column(f"R² of {ruler} on {by}") for ruler, by in pairs]
    rows = []
    for label, plane in planes.items():
        cells = [text(label)]
        for ruler in rulers:
            gaps = plane.gaps[ruler]
            cells += [number(plane.centre[ruler], ".4g"), number(gaps, "d", "bad" if gaps else "")]
        rows.append([*cells, *(number(plane.explained(ruler, by), ".4f") for ruler, by in pairs)])
    return Table("Planes", tuple(columns), rows)


def sharpness_table(caption: str, models: Mapping[str, Sharpness]) -> Table:
    """Return one row of figures for each model."""
    radii = [perturbed.radius for perturbed in next(iter(models.values())).perturbed]
    labels = ["loss L", "|T grad| / L", "λ1(H)", "smallest λ(H)", "trace(H)", "λ1(THT) / L", "trace(THT) / L"]
    labels += [label for radius in radii for label in (f"+ {radius:g}", f"worst {radius:g}")]
    columns = (Column("checkpoint", numeric=False), *map(Column, [*labels, "2 L at"]))
    rows = [[text(label), *_figures(found)] for label, found in models.items()]
    return Table(caption, columns, rows)


def _figures(found: Sharpness) -> list[Cell]:
    hessian = found.hessian
    curved = [hessian.largest, hessian.smallest, hessian.trace] if hessian else [None] * 3
    figures = [found.scaled_gradient, *curved, found.largest_over_loss, found.trace_over_loss]
    cells = [number(found.loss, ".4g"), *(number(value, ".3g") for value in figures)]
    for perturbed in found.perturbed:
        cells += [_interval(perturbed.mean, perturbed.standard_error), number(perturbed.worst, ".3g")]
    return [*cells, _interval(found.doubling_radius, found.doubling_error)]


def _interval(mean: float | None, error: float | None) -> Cell:
    if mean is None or error is None:
        return Cell(DASH)
    return Cell(f"{mean:.3g} ± {1.96 * error:.2g}", mean)
