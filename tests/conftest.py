"""Shared fixtures: a small drawn data set, and quiet, single-folder runs of anomalib's Engine."""

import socket

import pytest
import torch
from anomalib.engine import Engine
from helpers import SHARED_DATA, make_parts

torch.set_num_threads(1)  # the test models are tiny: on a busy machine more threads only wait for each other


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_process_group_is_left():
    """A distributed fit that breaks off leaves torch's process group; metrics of later tests would synchronise."""
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def parts_root(tmp_path_factory):
    """Folder with a few small drawn parts."""
    root = tmp_path_factory.mktemp("parts")
    make_parts(root).prepare_data()
    return root


@pytest.fixture
def parts(parts_root):
    """Datamodule over the drawn parts."""
    return make_parts(parts_root)


@pytest.fixture
def make_engine(tmp_path):
    """Return engines that write below tmp_path; one engine per run, as anomalib needs it."""

    def make(**arguments):
        options = {"accelerator": "cpu", "devices": 1, "default_root_dir": tmp_path, "logger": False}
        return Engine(**{**options, **arguments})

    return make


@pytest.fixture
def no_network(monkeypatch):
    """Fail the test at its first look for another machine."""

    def fail(*arguments, **_):
        pytest.fail(f"looked for the network: {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(socket.socket, "connect", fail)


@pytest.fixture(scope="session")
def shared_data():
    """Folder with real data sets; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real images at {SHARED_DATA}; set ANOMALIB_LAMP_DATA to a folder with MVTecAD/bottle")
    return SHARED_DATA
