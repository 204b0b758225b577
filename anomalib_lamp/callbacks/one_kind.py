"""Warns of a test whose metrics mean nothing since its images are all good, or all with defects."""

from typing import Any

import torch
from anomalib.metrics import Evaluator
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn


class WarnOfOneKind(Callback):
    """Warn at the end of a test whose images are of one kind; anomalib prints 0.0 for metrics that need two.

    Example:
        >>> trainer = Trainer(callbacks=[WarnOfOneKind()], logger=False, accelerator="cpu")
    """

    def __init__(self) -> None:
        self._good = self._defective = 0

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        del trainer, pl_module
        self._good = self._defective = 0

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count the images of a batch, if it says which of them have defects."""
        del trainer, pl_module, outputs
        if batch.gt_label is not None:
            defective = int(batch.gt_label.sum())
            self._defective += defective
            self._good += batch.gt_label.numel() - defective

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn if only one kind was there, in all processes together."""
        evaluator = pl_module.evaluator
        metrics = [str(metric.name) for metric in evaluator.test_metrics] if isinstance(evaluator, Evaluator) else []
        counts = torch.tensor([self._good, self._defective], device=pl_module.device)
        good, defective = trainer.strategy.reduce(counts, reduce_op="sum").tolist()
        if metrics and (good == 0) != (defective == 0):
            missing = "with defects" if good else "without defects"
            rank_zero_warn(
                f"Expected good test images and ones with defects, got {good} good ones and {defective} with defects: "
                f"the values of {', '.join(metrics)} mean nothing. Add images {missing} to the test set."
            )
