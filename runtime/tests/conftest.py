"""Shared fixtures: an exported model."""

import shutil

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
