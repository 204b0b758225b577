"""What anomalib's Engine predicts for photographs, with the raw scores that its post-processing replaces."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from anomalib.data import InferenceBatch, PredictDataset
from anomalib.data.utils.image import is_image_file
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

MAX_IMAGES = 1000  # photographs of a reference; their maps, a quarter of a megabyte each, are kept


@dataclass(frozen=True)
class Prediction:
    """Prediction for one photograph.

    Attributes:
        path: The photograph.
        score: Normalised score.
        raw_score: Score before the normalisation.
        anomalous: Label.
        anomaly_map: Normalised map (h, w).
    """

    path: Path
    score: float
    raw_score: float
    anomalous: bool
    anomaly_map: Tensor


class KeepPredictions(Callback):
    """Keeps what the model predicts, before anomalib's post-processing, and what that makes of it."""

    def __init__(self) -> None:
        self.predictions: list[Prediction] = []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Keep the predictions of a batch of one photograph."""
        del trainer, args, kwargs
        raw = InferenceBatch(pred_score=outputs.pred_score, anomaly_map=outputs.anomaly_map)
        final = pl_module.post_processor(raw)  # type: ignore[operator]
        self.predictions.append(
            Prediction(
                path=Path(outputs.image_path[0]),
                score=final.pred_score.item(),
                raw_score=raw_score(raw).item(),
                anomalous=bool(final.pred_label.item()),
                anomaly_map=final.anomaly_map[0].squeeze(0),
            )
        )


def raw_score(predictions: InferenceBatch) -> Tensor:
    """Return the scores that a model gives, (N,) or (N, 1); if it gives maps only, their maxima."""
    scores, maps = predictions.pred_score, predictions.anomaly_map
    return maps.amax(dim=(-2, -1)) if scores is None else scores  # type: ignore[union-attr]


def predict(model: AnomalibModule, images: Sequence[Path]) -> list[Prediction]:
    """Return what the Engine predicts for photographs.

    Args:
        model: A trained model.
        images: The photographs.
    """
    dataset = PredictDataset(images[0])
    dataset.image_filenames = list(images)
    keeper = KeepPredictions()
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(accelerator="cpu", devices=1, default_root_dir=folder, logger=False, callbacks=[keeper])
        engine.predict(model, dataset=dataset, return_predictions=False)
    return keeper.predictions


def image_files(folder: Path) -> list[Path]:
    """Return the image files in a folder and below; of more than a thousand, a thousand at equal distances.

    Raises:
        ValueError: If there are none.
    """
    files = sorted(path for path in folder.rglob("*") if is_image_file(path))
    if not files:
        msg = f"Expected a folder with photographs of normal parts, got {folder} without any image file."
        raise ValueError(msg)
    return [files[index] for index in np.linspace(0, len(files) - 1, min(len(files), MAX_IMAGES)).round().astype(int)]
