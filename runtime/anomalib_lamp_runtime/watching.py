"""Inspects the photographs that arrive in a folder, each once."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from PIL import Image

from anomalib_lamp_runtime.drift import Drift
from anomalib_lamp_runtime.errors import InspectionError
from anomalib_lamp_runtime.inspection import Inspection
from anomalib_lamp_runtime.photographs import SUFFIXES, read_photograph
from anomalib_lamp_runtime.results import Identity, ResultsFile
from anomalib_lamp_runtime.stopping import Stop

POLL_SECONDS = 0.25
LOOKING_SHARE = 0.1  # most of the time that is spent on looking through a large folder


class Watcher:
    """Inspects the photographs of a folder and of the folders in it, and writes a line of results for each.

    A photograph is a file with one of the suffixes of :data:`SUFFIXES` whose name begins neither with ``.`` nor with
    ``~``. It is told from others by its path, size and time of change. It is inspected once both have been the same for
    a while; if it cannot be read then, it may be half written, and is tried again before its error is recorded.

    Args:
        folder: The folder. While it is not there, it is waited for.
        results: Where the lines go. What is in it is not inspected again.
        inspect: Inspects an RGB image.
        settle: Seconds that a file must stay as it is before it is read.
        patience: Seconds that a file that cannot be read must stay as it is before its error is recorded.
        heat_maps: Folder for a picture of each photograph with its map; ``None`` for no pictures.
        drift: Is told of every inspected photograph, also of those in the results.
        tell: Takes messages.
    """

    def __init__(
        self,
        folder: Path,
        results: ResultsFile,
        inspect: Callable[[Image.Image], Inspection],
        settle: float = 1.0,
        patience: float = 10.0,
        heat_maps: Path | None = None,
        drift: Drift | None = None,
        tell: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
    ) -> None:
        self.folder, self.results, self.inspect = folder, results, inspect
        self.settle, self.patience, self.heat_maps = settle, patience, heat_maps
        self.drift, self.tell = drift, tell
        self.written = 0  # lines
        self._seen: dict[Identity, float] = {}  # when a photograph without a line was first seen as it is now
        self._unreadable: set[Identity] = set()  # those of them that were tried
        self._there = True
        self._pause = POLL_SECONDS
        if drift is not None:
            _replay(results, drift)

    def run(self, stop: Stop) -> None:
        """Look again and again until the stop.

        Raises:
            OSError: If a line or a picture cannot be written, for example on a full disk.
        """
        while not stop:
            self.look(time.monotonic(), stop)
            stop.wait(self._pause)

    def look(self, now: float, stop: Stop | None = None) -> None:
        """Look once: inspect what has settled and note what is new.

        Args:
            now: Seconds on a clock that only runs forward.
            stop: No further photograph is begun after it.
        """
        begun = time.monotonic()
        found = self._find()
        self._pause = max(POLL_SECONDS, (time.monotonic() - begun) / LOOKING_SHARE)
        self._seen = {photograph: self._seen.get(photograph, now) for photograph in found}
        self._unreadable &= self._seen.keys()
        for photograph in found:
            if stop:
                return
            age = now - self._seen[photograph]
            if age >= (self.patience if photograph in self._unreadable else self.settle):
                self._record(photograph, last_try=age >= self.patience)

    def _find(self) -> list[Identity]:
        """Return the photographs without a line, the oldest first; none while the folder is not there."""
        try:
            found = [photograph for photograph in _photographs(self.folder) if photograph not in self.results]
        except OSError as error:
            if self._there:
                self.tell(f"Waiting for {self.folder}, which cannot be read ({type(error).__name__}: {error}).")
            self._there = False
            return []
        if not self._there:
            self.tell(f"{self.folder} is there again.")
        self._there = True
        return sorted(found, key=lambda photograph: (photograph.mtime_ns, photograph.path))

    def _record(self, photograph: Identity, last_try: bool) -> None:
        """Inspect a photograph and write its line, unless it changed meanwhile or may be read later."""
        values: dict[str, Any] = {"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds")}
        try:
            image = read_photograph(self.folder / photograph.path)
            inspection = self.inspect(image)
        except Exception as error:  # whatever one photograph does, the next ones are inspected
            if not last_try:
                self._unreadable.add(photograph)
                return
            text = str(error) if isinstance(error, InspectionError) else f"{type(error).__name__}: {error}"
            values["error"] = text
        else:
            values |= inspection.as_dict()
        if not self._is_unchanged(photograph):
            return
        if "error" in values:
            self.tell(f"{photograph.path}: {values['error']}")
        else:
            values |= self._picture(photograph, image, inspection) | self._shifts(values)
        self.results.append(photograph, values)
        self.written += 1

    def _is_unchanged(self, photograph: Identity) -> bool:
        try:
            status = (self.folder / photograph.path).stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (photograph.size, photograph.mtime_ns)

    def _picture(self, photograph: Identity, image: Image.Image, inspection: Inspection) -> dict[str, str]:
        """Save the picture of a photograph, which is complete as soon as it has its name."""
        if self.heat_maps is None:
            return {}
        path = self.heat_maps / f"{photograph.path}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        inspection.heat_map(image).save(part, format="JPEG", quality=90)
        part.replace(path)
        return {"heat_map": str(path)}

    def _shifts(self, values: dict[str, Any]) -> dict[str, list]:
        """Return what has left its reference distribution with the last part of a window, and say it."""
        shifts = self.drift.add(values) if self.drift else None
        if shifts is None:
            return {}
        for shift in shifts:
            self.tell(f"Drift: {shift}")
        return {"drift": [shift.as_dict() for shift in shifts]}


def _photographs(folder: Path) -> Iterator[Identity]:
    """Yield the photographs in a folder and in those below it.

    Raises:
        OSError: If the folder cannot be read. One below it that cannot be read may be there at the next look.
    """
    remaining = [""]
    while remaining:
        here = remaining.pop()
        try:
            entries = list(os.scandir(folder / here))
        except OSError:
            if not here:
                raise
            continue
        for entry in entries:
            if entry.name.startswith((".", "~")):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    remaining.append(f"{here}{entry.name}/")
                elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
                    status = entry.stat()
                    yield Identity(here + entry.name, status.st_size, status.st_mtime_ns)
            except OSError:  # it has gone meanwhile
                continue


def _replay(results: ResultsFile, drift: Drift) -> None:
    """Tell of the photographs since the last full window in the results, so that a restart does not begin a new one."""
    since: list[dict[str, Any]] = []
    for line in results.lines():
        if "drift" in line:
            since = []
        elif "error" not in line:
            since.append(line)
    for line in since[-(drift.window - 1) :] if drift.window > 1 else []:
        drift.add(line)
