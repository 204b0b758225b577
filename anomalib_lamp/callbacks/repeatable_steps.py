"""Seeds every step of a training by its number, so that a resumed training takes the same steps."""

from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback


class RepeatableSteps(Callback):
    """Seed torch's generators before every batch, by seed, number of the batch and process.

    What happens between two batches, such as a validation or an interruption, has no influence on random numbers then.
    Every process damages its images in its own way.

    Args:
        seed: Seed of the training; ``None`` draws one from torch's global state, which checkpoints keep.

    Example:
        >>> trainer = Trainer(callbacks=[RepeatableSteps(seed=0)], logger=False, accelerator="cpu")
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed
        self._drawn: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Draw a seed if none was given."""
        del trainer, pl_module
        if stage == "fit":
            self._drawn = given_or_drawn(self.seed)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed what comes before the first step, and the workers of data loaders."""
        del trainer, pl_module
        if self.seed is not None:
            seed_everything(self.seed, workers=True, verbose=False)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Seed the step."""
        del args, kwargs
        number = trainer.fit_loop.total_batch_idx
        (seed,) = np.random.SeedSequence([self._drawn or 0, number, trainer.global_rank]).generate_state(1)
        torch.default_generator.manual_seed(int(seed))
        if pl_module.device.type == "cuda":
            torch.cuda.manual_seed(int(seed))

    def state_dict(self) -> dict[str, Any]:
        """Return the seed, for checkpoints."""
        return {"seed": self._drawn}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the seed of an interrupted training, if none was given."""
        if self.seed is None:
            self._drawn = state_dict["seed"]


def given_or_drawn(seed: int | None) -> int:
    """Return a seed, or one from torch's global state if it is ``None``."""
    return int(torch.randint(2**31, ()).item()) if seed is None else seed
