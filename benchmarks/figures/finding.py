"""Measures whether minima of LAMP are sharper than those of the base loss, at equal steps and at equal base loss.

python benchmarks/figures/finding.py    (trains what is not there; about 20 minutes of one core)

Writes benchmarks/results/landscape_finding.json. Measurements that it has are not made again. Paired by seed: the same
first weights, the same order of images. docs/landscape.md says what is seen.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from jsonargparse import auto_cli
from scipy.stats import spearmanr
from tqdm import tqdm
from training import CHECKPOINTS, SPEC, Run, all_runs, load_images, trained

from anomalib_lamp import LampAE
from anomalib_lamp.compare.environment import describe_run
from anomalib_lamp.compare.records import write_durably
from anomalib_lamp.landscape import log_ratio, losses_at, sharpness, weights_of
from anomalib_lamp.landscape.objectives import objective_of

IMAGES = 8  # of each kind
RESTARTS = 1  # of the search for the worst perturbation
TRACE_SAMPLES = 18
DIRECTIONS_OF_GRID = 8
FIGURES = {  # what is compared, by name
    "loss": lambda found: found["loss"],
    "gradient norm": lambda found: found["gradient_norm"],
    "|T grad| / L": lambda found: found["scaled_gradient"],
    "λ1(H)": lambda found: found["hessian"]["largest"],
    "trace(H)": lambda found: found["hessian"]["trace"],
    "λ1(THT) / L": lambda found: found["largest_over_loss"],
    "trace(THT) / L": lambda found: found["trace_over_loss"],
    "growth at 0.05": lambda found: found["perturbed"][0]["mean"],
    "growth at 0.1": lambda found: found["perturbed"][1]["mean"],
    "growth at 0.2": lambda found: found["perturbed"][2]["mean"],
    "growth at 0.5": lambda found: found["perturbed"][3]["mean"],
    "worst growth at 0.05": lambda found: found["perturbed"][0]["worst"],
    "worst growth at 0.1": lambda found: found["perturbed"][1]["worst"],
    "worst growth at 0.2": lambda found: found["perturbed"][2]["worst"],
    "worst growth at 0.5": lambda found: found["perturbed"][3]["worst"],
    "radius of doubling": lambda found: found["doubling_radius"],
}


COMPARISONS = {  # the first over the second, paired by seed; each by a ruler
    "minima, base ruler, learnt images": ("LAMP, {}, learnt", "base", "base, {}, learnt", "base"),
    "minima, base ruler, other learnt images": ("LAMP, {}, other learnt", "base", "base, {}, other learnt", "base"),
    "minima, base ruler, held-out images": ("LAMP, {}, held out", "base", "base, {}, held out", "base"),
    "minima, base ruler, curvature": ("LAMP, {}, curvature", "base", "base, {}, curvature", "base"),
    "minima, LAMP ruler, learnt images": ("LAMP, {}, learnt", "LAMP", "base, {}, learnt", "LAMP"),
    "minima, LAMP ruler, held-out images": ("LAMP, {}, held out", "LAMP", "base, {}, held out", "LAMP"),
    "rulers, minima of the base loss": ("base, {}, learnt", "LAMP", "base, {}, learnt", "base"),
    "rulers, minima of LAMP": ("LAMP, {}, learnt", "LAMP", "LAMP, {}, learnt", "base"),
    "equal base loss, base ruler": ("LAMP at equal loss, {}, learnt", "base", "base at equal loss, {}, learnt", "base"),
    "control, another learning rate": ("base with another rate, {}, learnt", "base", "base, {}, learnt", "base"),
}


def main(out: Path = Path("benchmarks/results/landscape_finding.json"), only: str = "") -> None:
    """Measure what the result file lacks, and compare.

    Args:
        out: Result file.
        only: Measure those only whose names have this in them.
    """
    torch.set_num_threads(1)
    content = json.loads(out.read_text()) if out.is_file() else {**describe_run(), "spec": SPEC, "measured": {}}
    jobs = {**finding_jobs(), **grid_jobs()}
    for name, job in tqdm(jobs.items()):
        if only in name and name not in content["measured"]:
            content["measured"][name] = job()
            write_durably(out, json.dumps(content, indent=1) + "\n")
    content["compared"] = {name: compare(content["measured"], *sides) for name, sides in COMPARISONS.items()}
    content["auroc"] = compare_auroc(content["measured"])
    content["spearman"] = spearman(content["measured"])
    write_durably(out, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps({name: content[name] for name in ("compared", "auroc", "spearman")}, indent=1, ensure_ascii=False))


def finding_jobs() -> dict[str, Callable[[], dict]]:
    """Return what is measured of the pairs of base loss and LAMP, by name."""
    images = load_images()
    learnt, other, held_out = images.learnt[:IMAGES], images.learnt[IMAGES : 2 * IMAGES], images.held_out[:IMAGES]
    jobs = {}
    for seed in SPEC["seeds"]:
        runs = {"base": Run(seed=seed), "LAMP": Run(seed=seed, amplify=True)}
        for name, run in runs.items():
            jobs |= {
                f"{name}, {seed}, learnt": partial(measure_run, run, learnt),
                f"{name}, {seed}, held out": partial(measure_run, run, held_out),
                f"{name} at equal loss, {seed}, learnt": partial(measure_at_equal_loss, runs, name, learnt),
                f"{name}, {seed}, other learnt": partial(measure_run, run, other),
                f"{name}, {seed}, curvature": partial(measure_run, run, learnt, in_full=True),
            }
        control = Run(seed=seed, rate=SPEC["rate_of_control"])
        jobs[f"base with another rate, {seed}, learnt"] = partial(measure_run, control, learnt)
    return jobs


def measure_run(run: Run, images: torch.Tensor, *, in_full: bool = False) -> dict:
    """Return the figures of the end of a training."""
    return measure(trained(run).model(), images, in_full=in_full)


def measure_at_equal_loss(runs: dict[str, Run], name: str, images: torch.Tensor) -> dict:
    """Return the figures of one of two trainings where their base losses are closest."""
    return measure(at_equal_loss(runs)[name], images)


def grid_jobs() -> dict:
    """Return what is measured of every run, for the correlation with AUROC: perturbations by its own base loss."""
    learnt = load_images().learnt[:IMAGES]

    def job(run: Run) -> dict:
        result = trained(run)
        found = measure(result.model(), learnt, directions=DIRECTIONS_OF_GRID)["base"]
        return {**found, "run": run._asdict(), "image_AUROC": result.image_auroc}

    return {f"grid, {' '.join(map(str, run))}": partial(job, run) for run in all_runs()}


def measure(model: LampAE, images: torch.Tensor, *, in_full: bool = False, directions: int = 20) -> dict:
    """Return figures by ruler; curvature, worst perturbations and doubling of the base ruler only, and in full only."""
    objective = objective_of(model, images)
    options = {"restarts": RESTARTS, "trace_samples": TRACE_SAMPLES, "directions": directions, "rulers": ["base"]}
    if not in_full:
        options |= {"without_curvature": "left out", "ascent_steps": 0, "doubling_steps": 0, "rulers": None}
    return {ruler: asdict(found) for ruler, found in sharpness(objective.closure, objective.module, **options).items()}


def at_equal_loss(runs: dict[str, Run]) -> dict[str, LampAE]:
    """Return both models where their base losses are closest: the better one at an earlier checkpoint."""
    images = load_images().learnt[: 8 * IMAGES]

    def base_loss(model: LampAE) -> float:
        objective = objective_of(model, images)
        return losses_at(objective.closure, weights_of(objective.module))["base"]

    results = {name: trained(run) for name, run in runs.items()}
    ends = {name: base_loss(result.model()) for name, result in results.items()}
    better, worse = sorted(ends, key=ends.get)
    earlier = [results[better].model(checkpoint) for checkpoint in range(CHECKPOINTS // 2, CHECKPOINTS)]
    chosen = min(earlier, key=lambda model: abs(base_loss(model) - ends[worse]))
    return {better: chosen, worse: results[worse].model()}


def compare(measured: dict, one: str, ruler: str, other: str, other_ruler: str) -> dict:
    """Return the geometric mean of ratios over seeds, with its 95 % interval, of every figure that both have."""
    result = {}
    for name, figure in FIGURES.items():
        sides = ((one, ruler), (other, other_ruler))
        pairs = [
            [value_of(measured.get(key.format(seed), {}).get(by), figure) for key, by in sides]
            for seed in SPEC["seeds"]
        ]
        if all(value is not None for pair in pairs for value in pair):
            ratio, low, high = log_ratio(*zip(*pairs, strict=True)) or (None, None, None)
            result[name] = {"ratio": ratio, "low": low, "high": high, "pairs": pairs}
    return result


def value_of(found: dict | None, figure: Callable[[dict], float | None]) -> float | None:
    """Return a figure, or ``None`` where it was not measured."""
    try:
        return None if found is None else figure(found)
    except TypeError:  # no curvature
        return None


def compare_auroc(measured: dict) -> dict:
    """Return image AUROC by seed of the pairs."""
    found = [entry for name, entry in measured.items() if name.startswith("grid")]
    main = [e for e in found if (e["run"]["loss"], e["run"]["batch_size"], e["run"]["rate"]) == ("l2", 16, 1.0)]
    return {
        name: [e["image_AUROC"] for e in sorted(main, key=lambda e: e["run"]["seed"]) if e["run"]["amplify"] == amplify]
        for name, amplify in (("base", False), ("LAMP", True))
    }


def spearman(measured: dict) -> dict:
    """Return Spearman's correlation of sharpness with image AUROC over all runs, and within each loss."""
    found = [entry for name, entry in measured.items() if name.startswith("grid")]
    groups = {"all": found} | {loss: [e for e in found if e["run"]["loss"] == loss] for loss in SPEC["losses"]}
    result = {}
    for group, entries in groups.items():
        for name in ("growth at 0.05", "growth at 0.1", "growth at 0.2", "loss"):
            pairs = [(FIGURES[name](entry), entry["image_AUROC"]) for entry in entries]
            pairs = [pair for pair in pairs if pair[0] is not None]
            rho, p = spearmanr(*zip(*pairs, strict=True))
            result[f"{group}, {name}"] = {"rho": round(float(rho), 3), "p": round(float(p), 4), "models": len(pairs)}
    return result


if __name__ == "__main__":
    auto_cli(main)
