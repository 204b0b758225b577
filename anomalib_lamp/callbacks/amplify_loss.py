"""LAMP for the loss of any anomalib model that has a reconstruction loss, while it is fitted."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from anomalib_lamp.amplification import Amplification, amplify_loss

HARDLY_MATTERS = 1.05


class AmplifyLoss(Callback):
    """Amplify the reconstruction terms of a model's loss during a fit; see :func:`~anomalib_lamp.amplify_loss`.

    Every epoch logs ``amplification_median`` and ``amplification_p99``, what the gradients of errors were multiplied
    by, and the end of the fit tells the last ones. Where the 99th percentile is below 1.05, LAMP can hardly matter.
    After the fit, however it ends, the model is as it was: checkpoints and exports do not need this package.

    Args:
        amplify: ``False`` trains as without the callback, to the bit, and only measures what LAMP would multiply.
        first_batches: How many batches give the scale of errors without a bound.

    Raises:
        ValueError: When a fit starts, if the model has no known reconstruction loss or is amplified already.
        RuntimeError: When a fit starts, if the version of anomalib is not known.

    Example:
        >>> trainer = Trainer(callbacks=[AmplifyLoss()], logger=False, accelerator="cpu")
    """

    def __init__(self, amplify: bool = True, first_batches: int = 10) -> None:
        self.amplify = amplify
        self.first_batches = first_batches
        self.multipliers: tuple[float, float] | None = None  # median and 99th percentile of the last epoch
        self._amplification: Amplification | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Amplify the loss."""
        del trainer
        if stage == "fit":
            self.multipliers = None
            self._amplification = amplify_loss(pl_module, self.amplify, self.first_batches)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the multipliers of the epoch."""
        del trainer
        multipliers = self._amplification.multipliers() if self._amplification else None
        if multipliers is not None:
            self.multipliers = multipliers
            names = ("amplification_median", "amplification_p99")
            pl_module.log_dict(dict(zip(names, multipliers, strict=True)), sync_dist=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the multipliers of the last epoch, and what they mean."""
        del trainer, pl_module
        if self.multipliers is None:
            rank_zero_warn(
                f"Nothing was amplified: the fit ended within the {self.first_batches} batches that give the scale of "
                "errors. Train longer, or give AmplifyLoss fewer first_batches."
            )
            return
        median, p99 = self.multipliers
        verdict = "" if p99 >= HARDLY_MATTERS else f" Below {HARDLY_MATTERS}, LAMP can hardly matter."
        verb = "multiplied" if self.amplify else "would have multiplied"
        rank_zero_info(
            f"LAMP {verb} the gradients of errors by {median:.3f} (median) and {p99:.3f} (99th percentile) in the last "
            f"epoch.{verdict}"
        )

    def on_fit_end(self, *_: Any) -> None:
        """Leave the model as it was."""
        if self._amplification is not None:
            self._amplification.remove()

    def on_exception(self, *_: Any) -> None:
        """Leave the model as it was."""
        self.on_fit_end()

    def teardown(self, *_: Any, **__: Any) -> None:
        """Leave the model as it was."""
        self.on_fit_end()

    def state_dict(self) -> dict[str, Any]:
        """Return what the scales are computed from."""
        return {} if self._amplification is None else self._amplification.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the scales from a checkpoint."""
        if self._amplification is not None:
            self._amplification.load_state_dict(state_dict)
