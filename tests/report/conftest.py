"""What several tests of the report share."""

import pytest
from helpers import mixed_records, write_folder

from anomalib_lamp.report import report


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Folder of a sweep with pictures and its report."""
    root = tmp_path_factory.mktemp("sweep")
    folder = write_folder(root, mixed_records(), pictures=1)
    folder.collect(folder.records())
    report(root)
    return folder
