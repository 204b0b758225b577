"""What several tests of the report share."""

import pytest
from generated import write_folder
from mixed import mixed_records

from anomalib_lamp.report import report


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Folder of a sweep with pictures and its report."""
    root = tmp_path_factory.mktemp("sweep")
    folder = write_folder(root, mixed_records(), pictures=1)
    folder.collect()
    report(root)
    return folder
