"""Loads the checkpoint that is exported."""

from collections.abc import Iterator
from pathlib import Path

import torch
from anomalib.models import AnomalibModule
from anomalib.pre_processing import PreProcessor

from anomalib_lamp.compare.classes import import_class, is_proper_subclass
from anomalib_lamp.pre_processing import AntialiasedPreProcessor


def load_model(ckpt: Path, name: str) -> AnomalibModule:
    """Return the model of a checkpoint, ready to be exported.

    Resizing with antialiasing becomes a part of the exported form, also of anomalib's own models.

    Args:
        ckpt: The checkpoint.
        name: Name or dotted path of its class.

    Raises:
        ValueError: If there is no such class, the checkpoint is not one of it, or it has no threshold.
    """
    cls = model_class(name)
    try:
        model = cls.load_from_checkpoint(ckpt, map_location="cpu", weights_only=True).eval()
    except Exception as error:  # a broken file makes torch raise errors of many types
        reason = str(error).partition("\n")[0]
        msg = (
            f"Expected a checkpoint of {cls.__name__}, got {ckpt} ({type(error).__name__}: {reason}). "
            "Give the class that was trained by --model."
        )
        raise ValueError(msg) from error
    threshold = getattr(model.post_processor, "image_threshold", torch.tensor(torch.nan))
    if not torch.isfinite(threshold):
        msg = (
            f"Expected a checkpoint with a threshold, got {ckpt} without one. Train with validation images, such as "
            "--data.val_split_mode from_train."
        )
        raise ValueError(msg)
    if type(model.pre_processor) is PreProcessor:
        model.pre_processor = AntialiasedPreProcessor(model.pre_processor.transform)
    model.visualizer = None
    return model


def model_class(name: str) -> type[AnomalibModule]:
    """Return a model's class by its name or its dotted path.

    Example:
        >>> model_class("LampAE").__name__
        'LampAE'
    """
    found = {cls.__name__: cls for cls in _subclasses(AnomalibModule)}
    cls = import_class(name) if "." in name else found.get(name)
    if not is_proper_subclass(cls, AnomalibModule):
        msg = f"Expected the name or dotted path of an anomalib model, such as LampAE or Padim, got {name!r}."
        raise ValueError(msg)
    return cls  # type: ignore[return-value]


def _subclasses(cls: type) -> Iterator[type]:
    subclass: type
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
