"""Measures what a plane of the default network costs beside plain forward passes, and two rulers beside one.

python benchmarks/landscape_speed.py benchmarks/results/landscape_speed.json    (about 20 minutes on one core)

The network that LampAE repairs pixels with by default, 64 images of 64 pixels. The ways are timed by turns, a row of
the plane each, so that what else the machine does meets all of them; a ratio is that of the sums. Seconds are those
of the processor, on one thread. Plain passes are as many as those of the plane.
"""

import json
import time
from pathlib import Path

import torch
from jsonargparse import auto_cli

from anomalib_lamp import LampAE
from anomalib_lamp.compare.environment import describe_run
from anomalib_lamp.functional import amplify, reconstruction_error
from anomalib_lamp.landscape import closure_of, grid, random_directions, surface, weights_of

IMAGES, SIDE = 64, 64
STEPS = 51
PASSES = STEPS + 1  # of a row: a call of surface evaluates its centre, too


def main(out: Path, rows: int = STEPS, base: str = "l2") -> None:
    """Time rows of the plane by turns in all ways, and write a JSON file.

    Args:
        out: Result file.
        rows: Rows of the plane; 51 for the whole one of 2,601 points.
        base: Loss that is measured.
    """
    description = describe_run()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = torch.rand(IMAGES, 3, SIDE, SIDE)
    network = LampAE(targets="pixels", image_size=SIDE).model.network.eval()
    centre, directions, axis = weights_of(network), random_directions(network), grid(1.0, STEPS)

    def error(output):
        return reconstruction_error(output, images, base)

    def both(output):
        of_output = error(output)
        return {"base": of_output.mean(), "LAMP": amplify(of_output).mean()}

    one_ruler = closure_of(network, images, lambda output: {"base": error(output).mean()})
    two_rulers = closure_of(network, images, both)

    def forward_passes(_):
        with torch.no_grad():
            for _ in range(PASSES):
                network(images)

    def forward_passes_and_losses(_):
        with torch.no_grad():
            for _ in range(PASSES):
                error(network(images)).mean().item()

    ways = {
        "forward passes": forward_passes,
        "forward passes and losses": forward_passes_and_losses,
        "plane, one ruler": lambda row: surface(one_ruler, centre, directions, [[row], axis]),
        "plane, two rulers": lambda row: surface(two_rulers, centre, directions, [[row], axis]),
    }
    seconds = dict.fromkeys(ways, 0.0)
    forward_passes(None)
    for row in axis[:rows]:
        for name, way in ways.items():
            begun = time.process_time()
            way(row)
            seconds[name] += time.process_time() - begun
    plane = seconds["plane, one ruler"]
    result = {
        **description,
        "threads": torch.get_num_threads(),
        "loss": base,
        "passes": rows * PASSES,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "plane / forward passes": round(plane / seconds["forward passes"], 3),
        "plane / forward passes and losses": round(plane / seconds["forward passes and losses"], 3),
        "two rulers / one": round(seconds["plane, two rulers"] / plane, 3),
    }
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(out.read_text())


if __name__ == "__main__":
    auto_cli(main)
