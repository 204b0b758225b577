"""A stop by SIGINT or SIGTERM that a loop looks for, so that what it does is brought to its end."""

import select
import signal
import socket
from types import FrameType


class Stop:
    """Becomes true at the first SIGINT (Ctrl-C) or SIGTERM; a second signal ends the process at once.

    A :class:`threading.Event` may not be set by a signal handler: the thread that waits for it can hold its lock.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._sender, self._receiver = socket.socketpair()
        self._stopped = False

    def __bool__(self) -> bool:
        return self._stopped

    def listen(self) -> "Stop":
        """Take the signals; only the main thread may do so."""
        for number in self.SIGNALS:
            signal.signal(number, self._handle)
        return self

    def set(self) -> None:
        """Stop, as a signal would."""
        self._stopped = True
        self._sender.send(b"\0")

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the stop, at most so long, and return whether it has come."""
        if not self._stopped:
            select.select([self._receiver], [], [], seconds)
        return self._stopped

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  what signal.signal asks for
        for signal_number in self.SIGNALS:
            signal.signal(signal_number, signal.SIG_DFL)
        self.set()
