"""Models that behave badly, for the runner's workers, which import them by name."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

from anomalib_lamp import LampAE


class DiesOnce(LampAE):
    """Kills its process in the first training that sees no marker file, as the system does when memory is exhausted.

    Args:
        marker: File that says that it has died before.
        **kwargs: Arguments of LampAE.
    """

    def __init__(self, marker: str, max_steps: int = 1, width: int = 4, image_size: int = 64) -> None:
        super().__init__(max_steps=max_steps, width=width, image_size=image_size, visualizer=False)
        self.marker = Path(marker)

    def on_fit_start(self) -> None:
        """Die, once."""
        super().on_fit_start()
        if not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class NotesStartMethod(LampAE):
    """Writes down how its data loaders would start their workers.

    Args:
        note: File to write to.
    """

    def __init__(self, note: str) -> None:
        super().__init__(max_steps=1, width=4, image_size=64, visualizer=False)
        Path(note).write_text(multiprocessing.get_start_method())


class NeverEnds(LampAE):
    """Has no training budget of its own."""

    def __init__(self) -> None:
        super().__init__(width=4, image_size=64, visualizer=False)
        del self.max_steps

    def setup(self, stage: str) -> None:
        """Leave the trainer as it is."""

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Return no limit."""
        return {}
