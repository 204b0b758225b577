"""The results file: whole lines only, torn ones mended, nothing that is not ours touched, full disks survived."""

import json
import resource
import subprocess
import sys

import pytest
from anomalib_lamp_runtime.results import Identity, ResultsFile

FIRST, SECOND = Identity("a.png", 10, 1), Identity("below/ä\udc80.png", 20, 2)


@pytest.fixture
def path(tmp_path):
    """A results file with two lines."""
    path = tmp_path / "new" / "results.jsonl"
    with ResultsFile(path) as results:
        results.append(FIRST, {"score": 0.5, "regions": [{"left": 1}]})
        results.append(SECOND, {"error": "bad\nphotograph"})
    return path


def test_line_is_json_with_identity_and_values(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"path": "a.png", "size": 10, "mtime_ns": 1, "score": 0.5, "regions": [{"left": 1}]}
    assert lines[1] == {"path": "below/ä\udc80.png", "size": 20, "mtime_ns": 2, "error": "bad\nphotograph"}


def test_restart_knows_what_has_a_line(path):
    with ResultsFile(path) as results:
        assert len(results) == 2
        assert FIRST in results
        assert SECOND in results
        assert Identity("a.png", 10, 2) not in results
        assert [line.get("score") for line in results.lines()] == [0.5, None]


def test_line_torn_at_any_byte_is_mended(path):
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole)):
        path.write_bytes(whole[:end])
        with ResultsFile(path) as results:
            assert (FIRST in results, SECOND in results) == (True, False)
            assert path.read_bytes() == whole[:first]
            results.append(SECOND, {"error": "bad\nphotograph"})
        assert path.read_bytes() == whole


def test_zeros_that_a_power_cut_leaves_are_cut_off(path):
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"pa' + bytes(3000))
    with ResultsFile(path) as results:
        assert len(results) == 2
    assert path.read_bytes() == whole


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n12", b"name,score\n", b"no line", b"[1]\n", b'{"path": "a"}\n'])
def test_other_files_are_refused_and_left_as_they_are(content, tmp_path):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"got something else (in line 1|at its end): name another file"):
        ResultsFile(path)
    assert path.read_bytes() == content


def test_second_process_is_refused(path):
    with ResultsFile(path):
        code = f"from anomalib_lamp_runtime.results import *; ResultsFile(Path({str(path)!r}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"Expected to be alone with {path}, another process writes it" in done.stderr
    with ResultsFile(path) as results:
        assert len(results) == 2


def test_full_disk_leaves_whole_lines_and_room_lets_it_go_on(path):
    """The limit on the size of files stops a write in the middle as a full disk does."""
    whole = path.read_bytes()
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    third = Identity("c.png", 30, 3)
    with ResultsFile(path) as results:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, hard))
        try:
            with pytest.raises(OSError, match="too large"):
                results.append(third, {"score": 0.1})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert path.read_bytes() == whole
        assert third not in results
        results.append(third, {"score": 0.1})
    with ResultsFile(path) as results:
        assert third in results
