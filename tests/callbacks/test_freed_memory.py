"""Memory of freed tensors is kept in the process."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from anomalib_lamp.callbacks.freed_memory import keep_freed_memory
torch.set_num_threads(1)
def page_faults():
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def step():
    tensors = [torch.zeros(2**20) for _ in range(20)]
given_back = page_faults()
if not keep_freed_memory():
    sys.exit(7)
print(given_back, page_faults())
"""


def test_freed_tensors_leave_their_pages_to_the_next():
    done = subprocess.run([sys.executable, "-Wignore", "-c", FAULTS], capture_output=True, text=True, check=False)
    if done.returncode == 7:
        pytest.skip("no glibc")
    given_back, kept = map(int, done.stdout.split()[-2:])
    assert kept < 0.1 * given_back
