"""Watching a folder: every photograph has one line, whatever its writer, the folder, the disk and the process do."""

import itertools
import json
import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest
from anomalib_lamp_runtime.drift import Drift
from anomalib_lamp_runtime.results import ResultsFile
from anomalib_lamp_runtime.stopping import Stop
from anomalib_lamp_runtime.watching import Watcher
from fakes import FakeInspector, draw_photograph, save_photograph, score_of, with_size
from PIL import Image

SETTLE, PATIENCE = 1, 10
KILLS = 3
PROCESS = """
import sys
from pathlib import Path
from anomalib_lamp_runtime.results import ResultsFile
from anomalib_lamp_runtime.stopping import Stop
from anomalib_lamp_runtime.watching import Watcher
from fakes import FakeInspector

folder, file, *limit = map(Path, sys.argv[1:])
stop = Stop().listen()
with ResultsFile(file) as results:
    watcher = Watcher(folder, results, FakeInspector(0.004), settle=0.02, heat_maps=file.parent / "maps")
    print("ready", flush=True)
    watcher.run(stop)
print("ended", flush=True)
"""


class Line:
    """A watcher, its folder and its clock."""

    def __init__(self, root, **arguments):
        self.folder, self.file, self.messages = root / "camera", root / "results.jsonl", []
        self.folder.mkdir(exist_ok=True)
        self.results = ResultsFile(self.file)
        self.inspector, self.now = FakeInspector(), 0.0
        options = {"settle": SETTLE, "patience": PATIENCE, "tell": self.messages.append, **arguments}
        self.watcher = Watcher(self.folder, self.results, self.inspector, **options)

    def look(self, *seconds):
        """Look at once, or after each of these waits; return the lines."""
        for wait in seconds or (0,):
            self.now += wait
            self.watcher.look(self.now)
        return lines_of(self.file)


@pytest.fixture
def make_line(tmp_path):
    """Return watchers of one folder and one results file, one after the other, as restarts would be."""
    made = []

    def make(**arguments):
        for line in made:
            line.results.__exit__()
        made.append(Line(tmp_path, **arguments))
        return made[-1]

    yield make
    made[-1].results.__exit__()


def lines_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_line_tells_file_time_and_inspection(make_line):
    line = make_line()
    status = save_photograph(line.folder / "part.png", 300).stat()
    assert line.look() == []
    (values,) = line.look(SETTLE)
    assert values.pop("time").endswith("+00:00")
    assert values == {
        "path": "part.png",
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        **FakeInspector()(draw_photograph(300)).as_dict(),
    }


def test_photographs_are_taken_oldest_first_from_folders_below_too(make_line):
    line = make_line()
    for number, name in enumerate(["c.png", "monday/b.PNG", "monday/early/a.png"]):
        os.utime(save_photograph(line.folder / name, number), ns=(number, number))
    line.look()
    assert [values["path"] for values in line.look(SETTLE)] == ["c.png", "monday/b.PNG", "monday/early/a.png"]


def test_other_files_are_ignored(make_line):
    line = make_line()
    for name in (".hidden.png", "~part.png", "part.png.part", "notes.txt", ".thumbnails/part.png"):
        save_photograph(line.folder / name, 1)
    os.mkfifo(line.folder / "pipe.png")
    (line.folder / "folder.png").mkdir()
    assert line.look(0, SETTLE, PATIENCE) == []
    assert line.inspector.calls == 0


def test_file_that_still_grows_is_waited_for(make_line):
    line = make_line()
    whole = save_photograph(line.folder / "part.png", 300, size=(200, 200)).read_bytes()
    for end in range(10, len(whole), len(whole) // 5):
        (line.folder / "part.png").write_bytes(whole[:end])
        assert line.look(0.9 * SETTLE) == []
    assert line.watcher._unreadable == set()  # never read before it had settled
    (line.folder / "part.png").write_bytes(whole)
    (values,) = line.look(0, SETTLE)
    assert values["score"] == score_of(300)


def test_file_that_pauses_half_written_is_waited_for(make_line):
    line = make_line()
    whole = save_photograph(line.folder / "part.png", 300, size=(200, 200)).read_bytes()
    (line.folder / "part.png").write_bytes(whole[: len(whole) // 2])
    assert line.look(0, SETTLE, SETTLE, 5 * SETTLE) == []
    (line.folder / "part.png").write_bytes(whole)
    assert [values["score"] for values in line.look(0, SETTLE)] == [score_of(300)]
    assert len(line.look(PATIENCE, PATIENCE)) == 1


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("empty", "Expected a photograph that can be read"),
        ("text", "Expected a photograph that can be read"),
        ("PostScript", "Expected a photograph that can be read"),
        ("truncated", "Expected a complete photograph"),
        ("huge", "2500000000 pixels"),
    ],
)
def test_bad_photograph_gets_one_line_with_its_error_and_others_go_on(kind, words, make_line):
    line = make_line()
    bad = save_photograph(line.folder / "bad.png", 1, size=(99, 99))
    contents = {"empty": b"", "text": b"no photograph\n" * 99, "truncated": bad.read_bytes()[:-100]}
    contents["PostScript"] = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    contents["huge"] = with_size(bad.read_bytes(), 50_000)
    bad.write_bytes(contents[kind])
    save_photograph(line.folder / "good.png", 2)
    (good,) = line.look(0, SETTLE, 0.9 * (PATIENCE - SETTLE))
    assert (good["path"], good["score"]) == ("good.png", score_of(2))
    _, second = line.look(0.1 * (PATIENCE - SETTLE))
    assert second["path"] == "bad.png"
    assert words in second["error"]
    assert line.messages == [f"bad.png: {second['error']}"]
    assert len(line.look(PATIENCE)) == 2


def test_failing_inspector_costs_one_photograph_only(make_line):
    line = make_line()
    line.watcher.inspect = lambda image: {}[image.size]
    save_photograph(line.folder / "part.png", 1)
    (values,) = line.look(0, SETTLE, PATIENCE)
    assert values["error"] == "KeyError: (16, 16)"


def test_photograph_that_changes_under_inspection_is_inspected_as_it_is_then(make_line):
    line = make_line()
    path = save_photograph(line.folder / "part.png", 1)
    inspect = line.inspector

    def change(image):
        save_photograph(path, 20000, size=(20, 20))
        line.watcher.inspect = inspect
        return inspect(image)

    line.watcher.inspect = change
    assert line.look(0, SETTLE) == []
    assert [values["score"] for values in line.look(0, SETTLE)] == [score_of(20000)]


def test_photograph_that_is_written_again_gets_another_line(make_line):
    line = make_line()
    for number in (1, 2):
        os.utime(save_photograph(line.folder / "part.png", number), ns=(number, number))
        line.look(0, SETTLE)
    assert [values["score"] for values in line.look()] == [score_of(1), score_of(2)]


def test_photograph_that_is_taken_away_is_forgotten(make_line):
    line = make_line()
    path = save_photograph(line.folder / "part.png", 1)
    line.look()
    path.unlink()
    assert line.look(SETTLE) == []
    assert line.watcher._seen == {}


def test_restart_repeats_and_loses_nothing(make_line):
    line = make_line()
    save_photograph(line.folder / "1.png", 1)
    line.look(0, SETTLE)
    save_photograph(line.folder / "2.png", 2)
    line = make_line()
    save_photograph(line.folder / "3.png", 3)
    assert [values["path"] for values in line.look(0, SETTLE)] == ["1.png", "2.png", "3.png"]
    assert line.inspector.calls == 2


def test_folder_that_vanishes_is_waited_for_with_one_message_each_way(make_line, tmp_path):
    line = make_line()
    save_photograph(line.folder / "1.png", 1)
    line.look(0, SETTLE)
    line.folder.rename(tmp_path / "away")
    line.look(SETTLE, SETTLE)
    (tmp_path / "away").rename(line.folder)
    save_photograph(line.folder / "2.png", 2)
    assert [values["path"] for values in line.look(0, SETTLE)] == ["1.png", "2.png"]
    assert [message.partition(",")[0] for message in line.messages] == [
        f"Waiting for {line.folder}",
        f"{line.folder} is there again.",
    ]


def test_heat_map_of_each_photograph_lies_under_its_name(make_line, tmp_path):
    line = make_line(heat_maps=tmp_path / "maps")
    save_photograph(line.folder / "monday/part.png", 300, size=(40, 30))
    (values,) = line.look(0, SETTLE)
    assert values["heat_map"] == str(tmp_path / "maps/monday/part.png.jpg")
    with Image.open(values["heat_map"]) as picture:
        assert picture.size == (40, 30)
    assert [path.name for path in (tmp_path / "maps/monday").iterdir()] == ["part.png.jpg"]


def test_drift_is_told_once_and_stands_in_the_line_that_fills_the_window(make_line):
    normal = range(30000, 30100)
    drifts = [Drift({"score": [score_of(number) for number in normal]}, window=10, rate=0.001) for _ in range(3)]
    line = make_line(drift=drifts[0])
    for number in range(24):
        if number in (4, 13):  # restarts in the middle of a window
            line = make_line(drift=drifts[1 + (number == 13)])
        place = 30000 + 10 * number if number < 10 else 40000 + number
        save_photograph(line.folder / f"{number:02}.png", place)
        line.look(0, SETTLE)
    found = {values["path"]: values["drift"] for values in line.look() if "drift" in values}
    assert list(found) == ["09.png", "19.png"]
    assert found["09.png"] == []
    (shift,) = found["19.png"]
    assert shift["quantity"] == "score"
    assert shift["window_median"] == pytest.approx(score_of(40014.5), abs=1e-6)
    assert [message[:27] for message in line.messages] == ["Drift: score has moved: its"]


def test_stop_ends_after_the_photograph_at_hand(make_line):
    line, stop = make_line(settle=0), Stop()
    for number in range(5):
        save_photograph(line.folder / f"{number}.png", number)
    inspect = line.inspector

    def stop_at_second(image):
        if inspect.calls == 1:
            stop.set()
        return inspect(image)

    line.watcher.inspect = stop_at_second
    line.watcher.run(stop)
    assert len(line.results) == 2


def test_full_disk_stops_and_a_restart_goes_on(make_line):
    """The limit on the size of files stops a write in the middle as a full disk does."""
    line = make_line()
    for number in range(6):
        save_photograph(line.folder / f"{number}.png", number)
    line.look()
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            line.look(SETTLE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert 1 <= len(lines_of(line.file)) <= 4
    line = make_line()
    assert [values["path"] for values in line.look(0, SETTLE)] == [f"{number}.png" for number in range(6)]


def test_killed_while_photographs_arrive_every_one_has_one_line(tmp_path, process_of):
    draw, numbers = random.Random(0), itertools.count()
    folder, file = tmp_path / "camera", tmp_path / "results.jsonl"

    def start():
        process = process_of(PROCESS, folder, file)
        assert process.stdout.readline() == "ready\n"
        return process

    def arrive(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            number = next(numbers)
            save_photograph(folder / f"{number}.png", number)
            time.sleep(0.003)

    for _ in range(KILLS):
        process = start()
        arrive(draw.uniform(0.1, 0.5))
        process.kill()
        process.wait()
        arrive(0.02)
    process = start()
    total = next(numbers)
    wait_until(lambda: file.read_bytes().count(b"\n") >= total)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10)[0] == "ended\n"
    assert process.returncode == 0
    found = lines_of(file)
    assert sorted(int(Path(values["path"]).stem) for values in found) == list(range(total))
    assert all(values["score"] == score_of(int(Path(values["path"]).stem)) for values in found)
    assert all(Path(values["heat_map"]).exists() for values in found)


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
