"""The tables of the READMEs are those of the committed results."""

import pytest
from helpers import REPOSITORY
from render_tables import TABLES, render


@pytest.mark.parametrize("path", TABLES)
def test_tables_are_up_to_date(path):
    assert (REPOSITORY / path).read_text() == render(path), "run python benchmarks/render_tables.py"
