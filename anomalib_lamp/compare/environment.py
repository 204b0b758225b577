"""What is recorded beside every figure: commit, machine, versions, times."""

import importlib.metadata
import os
import platform
import subprocess
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .records import Origin

PACKAGES = ("anomalib", "anomalib-lamp", "lightning", "torch", "torchvision")


def describe_run() -> dict[str, Any]:
    """Return the date and :func:`describe_software`, for the result file of a script; call it before the run begins."""
    return {"date": datetime.now(timezone.utc).isoformat(timespec="seconds"), **describe_software()}


def describe_origin(started: datetime, device: str) -> Origin:
    """Return where and with what a job ran that has just ended."""
    ended = datetime.now(timezone.utc)
    return Origin(started=started, ended=ended, device=device, threads=torch.get_num_threads(), **describe_software())


@cache
def describe_software() -> dict[str, Any]:
    """Return machine, Python, package versions and commit as plain values for JSON."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": _commit(Path(__file__).parent),
    }


def _version(package: str) -> str:
    """Return a package's version; ours may run from its sources."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit(folder: Path) -> str | None:
    """Return the commit that our code is at, marked where it was changed, or ``None`` outside its repository."""

    def git(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)

    try:
        if git("ls-files", "--error-unmatch", Path(__file__).name).returncode:
            return None
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*").stdout.strip() or None
    except FileNotFoundError:
        return None
