"""Shared fixtures: an exported model, and processes that end with their test."""

import os
import shutil
import subprocess
import sys

import pytest
from exports import write_export


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Folder of an exported model; tests do not alter it."""
    return write_export(tmp_path_factory.mktemp("exported") / "model")


@pytest.fixture
def altered(exported, tmp_path):
    """Copy of the folder that a test may alter."""
    return shutil.copytree(exported, tmp_path / "altered")


@pytest.fixture
def process_of():
    """Return a function that runs a program of Python with this one's paths, and kills it when the test is over."""
    processes = []

    def start(program, *arguments):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-c", program, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        processes.append(subprocess.Popen(command, env=environment, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()
