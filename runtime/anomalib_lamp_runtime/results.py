"""The results of `watch`: a file with one line of JSON for each photograph, whole lines only."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

if sys.platform != "win32":
    import fcntl

BEGINNING = b'{"path": "'


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a photograph from others: a file that is written again is another photograph.

    Attributes:
        path: Its path below the watched folder, with ``/``.
        size: Bytes.
        mtime_ns: Time of its last change, in nanoseconds.
    """

    path: str
    size: int
    mtime_ns: int


class ResultsFile:
    r"""Lines of results, each written to the disk before the next; a process that is killed loses none of them.

    A last line that was torn is cut off when the file is opened, so its photograph is inspected again. On POSIX the
    file is locked for one process.

    Args:
        path: The file; made if there is none.

    Raises:
        ValueError: If it holds something else than such lines.
        OSError: If it cannot be opened, or another process has it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "results.jsonl"
        >>> with ResultsFile(path) as results:
        ...     results.append(Identity("part.png", 100, 5), {"score": 0.25})
        >>> path.read_text()
        '{"path": "part.png", "size": 100, "mtime_ns": 5, "score": 0.25}\n'
        >>> with ResultsFile(path) as results:
        ...     Identity("part.png", 100, 5) in results
        True
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        try:
            self._lock()
            self._known = {_identity(line) for line in self.lines()}
            self._mend()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "ResultsFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, identity: Identity) -> bool:
        return identity in self._known

    def __len__(self) -> int:
        return len(self._known)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Return the whole lines, the oldest first.

        Raises:
            ValueError: If one is no line of results; the message names it.
        """
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n"):
                    yield self._parse(line, number)

    def append(self, identity: Identity, values: Mapping[str, Any]) -> None:
        """Write the line of a photograph; it is on the disk when this returns.

        Raises:
            OSError: If it cannot be written, for example on a full disk; nothing of it is left then.
        """
        line = json.dumps({**asdict(identity), **values}).encode() + b"\n"
        end = os.fstat(self._file.fileno()).st_size
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError:
            with suppress(OSError):  # if this fails too, the line is mended at the next start
                self._file.truncate(end)
            raise
        self._known.add(identity)

    def _lock(self) -> None:
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"Expected to be alone with {self.path}, another process writes it: stop that one, or name another."
            raise BlockingIOError(msg) from None

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            values = json.loads(line)
            _identity(values)
        except (ValueError, KeyError, TypeError):
            msg = f"Expected results of `watch` in {self.path}, got something else in line {number}: name another file."
            raise ValueError(msg) from None
        return values

    def _mend(self) -> None:
        """Cut off a last line without end, if it is the beginning of one of ours or what a power cut leaves."""
        tail = _last_line(self._file)
        written = tail.rstrip(b"\0")
        if not (written.startswith(BEGINNING) or BEGINNING.startswith(written)):
            msg = f"Expected results of `watch` in {self.path}, got something else at its end: name another file."
            raise ValueError(msg)
        if tail:
            self._file.truncate(os.fstat(self._file.fileno()).st_size - len(tail))


def _identity(values: Mapping[str, Any]) -> Identity:
    return Identity(str(values["path"]), int(values["size"]), int(values["mtime_ns"]))


def _last_line(file: BinaryIO) -> bytes:
    """Return what follows the last end of a line."""
    file.seek(0)
    tail = b""
    while block := file.read(2**20):
        head, end, rest = block.rpartition(b"\n")
        tail = rest if end else tail + head + rest
    return tail
