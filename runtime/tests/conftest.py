"""Processes that end with their test."""

import os
import subprocess
import sys

import pytest


@pytest.fixture
def process_of():
    """Return a function that runs a program of Python with this one's paths, and kills it when the test is over."""
    processes = []

    def start(program, *arguments):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-c", program, *map(str, arguments)]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()
