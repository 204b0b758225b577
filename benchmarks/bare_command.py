"""Measures the bare command `anomalib train --model LampAE --data MVTec`: wall time, metrics, peak memory."""

import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

from jsonargparse import auto_cli

from anomalib_lamp.compare.environment import describe_run


def main(root: Path, out: Path, category: str = "bottle", folder: Path = Path()) -> None:
    """Run the command and write a JSON file.

    Args:
        root: Folder of MVTec AD.
        out: Result file.
        category: Category of MVTec AD.
        folder: Where the command runs, and its results folder is made.
    """
    anomalib = Path(sys.executable).with_name("anomalib")
    command = [anomalib, "train", "--model", "LampAE", "--data", "MVTec", "--data.root", root.resolve()]
    command = [str(word) for word in [*command, "--data.category", category]]
    described = describe_run()
    started = time.perf_counter()
    log = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    metrics = {name: float(value) for name, value in re.findall(r"(\w+_(?:AUROC|F1Score))\s+│\s+([\d.]+)", log.stdout)}
    if log.returncode or not metrics:
        print(log.stdout[-5000:], log.stderr[-5000:], sep="\n")
        sys.exit("the command failed")
    result = {
        **described,
        "command": " ".join(["anomalib", *command[1:]]).replace(str(root.resolve()), "<MVTecAD>"),
        "wall_seconds": round(seconds, 1),
        "peak_rss_mib_of_the_largest_process": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        "metrics": metrics,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(out.read_text())


if __name__ == "__main__":
    auto_cli(main)
