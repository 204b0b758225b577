"""Refuses a trainer's precision under which weights would not be float32."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


class Float32Weights(Callback):
    """Before a fit, raise an error unless the trainer keeps weights in float32.

    Raises:
        ValueError: If the trainer's precision is none of ``32-true``, ``bf16-mixed``, ``16-mixed``.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the precision."""
        del pl_module
        if stage == "fit" and trainer.precision not in PRECISIONS:
            msg = f"Expected a trainer's precision of {', '.join(PRECISIONS)}, got {trainer.precision}."
            raise ValueError(msg)
