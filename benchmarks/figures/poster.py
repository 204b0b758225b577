"""Draws the poster's four figures from the models of spec.yaml.

python benchmarks/figures/poster.py landscapes         1: minima of L2 and of LAMP, by both rulers
python benchmarks/figures/poster.py loss_curves        2: losses of a training with LAMP on L1 and on L2
python benchmarks/figures/poster.py batch_sizes        3: contours at three batch sizes
python benchmarks/figures/poster.py reconstructions    4: defects reconstructed with the base loss and with LAMP

Each writes benchmarks/figures/NAME.png and the planes that it drew beside it; models that are not there are trained.
"""

from pathlib import Path

import torch
from jsonargparse import auto_cli
from training import SPEC, Run, load_images, trained

from anomalib_lamp.functional import reconstruction_error
from anomalib_lamp.landscape import Surface, grid, plot, random_directions, surface, weights_of
from anomalib_lamp.landscape.objectives import objective_of

HERE = Path(__file__).parent
IMAGES = 8
STEPS = 25
RADIUS = 0.6  # beyond, the output is saturated
SHOWN_DEFECTS = 5
TITLES = {"base": "L2", "LAMP": "LAMP on L2"}


def plane_of(run: Run) -> Surface:
    """Return the plane of a run's base loss and LAMP, on learnt images, kept in a file."""
    objective = objective_of(trained(run).model(), load_images().learnt[:IMAGES])
    return surface(
        objective.closure,
        weights_of(objective.module),
        random_directions(objective.module),
        [grid(RADIUS, STEPS)] * 2,
        HERE / "planes" / f"{run.loss}-{_name(run.amplify)}-{run.batch_size}.json",
        {"run": list(run), "images": IMAGES},
        progress=True,
    )


def landscapes() -> None:
    """Draw the 2 x 2 of weights and rulers, all on the same axes and levels."""
    planes = {amplify: plane_of(Run(amplify=amplify)) for amplify in (False, True)}
    panels = {
        f"trained with {TITLES[_name(amplify)]}\nmeasured by {TITLES[ruler]}": one_ruler(plane, ruler, "loss")
        for amplify, plane in planes.items()
        for ruler in TITLES
    }
    save(plot.contours(panels, "loss", columns=2), "landscapes")
    save(plot.surfaces_3d(panels, "loss", columns=2), "landscapes_3d")


def one_ruler(plane: Surface, ruler: str, label: str) -> Surface:
    """Return a plane with one of its rulers, under a label."""
    return Surface(plane.axes, {label: plane.values[ruler]}, {label: plane.centre[ruler]})


def loss_curves() -> None:
    """Draw training losses of LAMP and of the base loss, for L1 and L2."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(plot.STYLE):
        figure = Figure(figsize=(7.4, 3.1), layout="constrained")
        panels = figure.subplots(1, 2)
        for axes, loss in zip(panels, ("l1", "l2"), strict=True):
            for number, amplify in enumerate((False, True), start=1):
                curve = trained(Run(loss=loss, amplify=amplify)).curve
                shade = plot.colour(number)
                label = f"{loss.upper()}, trained with {'LAMP' if amplify else loss.upper()}"
                axes.plot(smoothed(curve[:, 1]), color=shade, linewidth=1.4, label=label)
                if amplify:
                    label = f"-log(1 - {loss.upper()}), trained with LAMP"
                    axes.plot(smoothed(curve[:, 0]), ":", color=shade, linewidth=1.6, label=label)
            axes.set(yscale="log", xlabel="step", ylabel="mean over pixels")
            axes.legend(frameon=False, fontsize=8)
    save(figure, "loss_curves")


def _name(amplify: bool) -> str:
    return "LAMP" if amplify else "base"


def smoothed(values: torch.Tensor, steps: int = 10) -> torch.Tensor:
    """Return the mean of every value and the ones before it."""
    return torch.stack([values[max(0, number - steps + 1) : number + 1].mean() for number in range(len(values))])


def batch_sizes() -> None:
    """Draw contours of the base loss at three batch sizes, after as many images."""
    panels = {
        f"trained with {TITLES[_name(amplify)]}\nin batches of {size}": one_ruler(
            plane_of(Run(batch_size=size, amplify=amplify)), "base", "L2"
        )
        for amplify in (False, True)
        for size in SPEC["batch_sizes"]
    }
    save(plot.contours(panels, "L2"), "batch_sizes")


def reconstructions() -> None:
    """Draw defects, their reconstructions and errors, with the base loss and with LAMP, errors on one scale."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    images = load_images()
    defects = images.tested[images.anomalous]
    chosen = defects[:: len(defects) // SHOWN_DEFECTS][:SHOWN_DEFECTS]
    rows = {"image": chosen}
    errors = {}
    for amplify in (False, True):
        with torch.inference_mode():
            repaired = trained(Run(amplify=amplify)).model().model.reconstruct(chosen)
        rows[f"trained with\n{TITLES[_name(amplify)]}"] = repaired
        errors[f"error, trained with\n{TITLES[_name(amplify)]}"] = reconstruction_error(repaired, chosen, "l1").mean(1)
    largest = max(float(error.max()) for error in errors.values())
    with mpl.rc_context(plot.STYLE):
        figure = Figure(figsize=(1.35 * SHOWN_DEFECTS + 0.9, 7.0), layout="constrained")
        panels = figure.subplots(len(rows) + len(errors), SHOWN_DEFECTS)
        for line, (label, row) in zip(panels, [*rows.items(), *errors.items()], strict=True):
            line[0].set_ylabel(label, fontsize=8)
            for axes, image in zip(line, row, strict=True):
                picture = image.permute(1, 2, 0) if image.ndim == 3 else image
                drawn = axes.imshow(picture, cmap="magma", vmin=0, vmax=largest, interpolation="nearest")
                axes.set(xticks=[], yticks=[])
                axes.grid(visible=False)
                axes.spines[:].set_visible(False)
        figure.colorbar(drawn, ax=list(panels[3:].flat), label="absolute error, mean over colours", shrink=0.8)
    save(figure, "reconstructions")


def save(figure, name: str) -> None:
    """Write a figure beside this file, as PNG."""
    png, svg = plot.save(figure, HERE / name)
    svg.unlink()
    print(png)


if __name__ == "__main__":
    auto_cli([landscapes, loss_curves, batch_sizes, reconstructions])
