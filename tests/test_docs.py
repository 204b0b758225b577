"""The Python blocks of docs/*.md run in order, one namespace per document; those of deploy.md in tests/export."""

import os
import re
import subprocess
import sys

import pytest
from helpers import REPOSITORY

DOCUMENTS = [
    path
    for path in sorted((REPOSITORY / "docs").glob("*.md"))
    if "```python" in path.read_text() and path.name != "deploy.md"
]


def python_blocks(text):
    """Return a document's Python blocks as one program, each at the lines where it stands."""
    inside, lines = False, []
    for line in text.splitlines():
        if line.startswith("```"):
            inside = line == "```python"
            lines.append("")
        else:
            lines.append(line if inside else "")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_blocks_run(document, tmp_path):
    """In a process of its own, since the blocks add to anomalib's models and to our tables of names."""
    program = tmp_path / f"{document.stem}.py"
    program.write_text(python_blocks(document.read_text()))
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "runtime")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, program], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("document", sorted((REPOSITORY / "docs").glob("*.md")), ids=lambda path: path.name)
def test_links_exist(document):
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text()):
        assert (document.parent / path).exists(), path


def test_extending_has_blocks():
    assert "extending.md" in [path.name for path in DOCUMENTS]
