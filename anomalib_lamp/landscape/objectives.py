"""What is measured of anomalib's models: their training loss by two rulers, the base loss and the same with LAMP."""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from anomalib.data import ImageBatch
from anomalib.models import AnomalibModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from anomalib_lamp.amplification.handle import large_error
from anomalib_lamp.amplification.registry import ErrorTerm, Terms, losses_of
from anomalib_lamp.corruption import repeatably
from anomalib_lamp.functional import amplify, amplify_on_scale, reconstruction_error
from anomalib_lamp.models.lamp_ae.feature_branch import FeatureBranch
from anomalib_lamp.models.lamp_ae.lightning_model import LampAE

from .closure import Closure, closure_of, common_random_numbers

BASE, LAMP = "base", "LAMP"
KINKED = "L1 has no second derivative where an error is 0, and almost everywhere that of the network alone"
CHANGED_GRADIENTS = "the loss of this model changes its gradients, so they are not those of the surface"
DINOMALY_STEP = 1000  # from which on its loss does not change any more

Step = Callable[[Any, ImageBatch], Tensor]


@dataclass(frozen=True)
class Objective:
    """A loss around whose weights a landscape is drawn.

    Attributes:
        module: The module whose weights are the centre, a copy of the model's part that is trained.
        closure: The losses ``base`` and ``LAMP`` as a function of its weights, means over errors where the model's loss
            is one. What is drawn at random, such as damage, is the same at every call.
        without_curvature: Why there is no second derivative; empty if there is.
    """

    module: nn.Module
    closure: Closure
    without_curvature: str = ""


def objective_of(model: AnomalibModule, images: Tensor, target: str | None = None) -> Objective:
    """Return what is trained of a model, as a function of its weights; the model itself does not change.

    Norms and dropout are in the state of prediction, whatever the rest: statistics are those of the training.

    Args:
        model: A trained LampAE, or a model whose loss :func:`~anomalib_lamp.amplify_loss` knows.
        images: Images as the model gets them, after its pre-processor, (N, 3, H, W).
        target: For LampAE: ``pixels`` or ``features``; the first that it has if not given.

    Raises:
        ValueError: If the model has no such part, or its loss is not known.

    Example:
        >>> model = LampAE(targets="pixels", width=4, depth=3, image_size=64)
        >>> objective = objective_of(model, torch.rand(2, 3, 64, 64))
        >>> from anomalib_lamp.landscape import weights_of
        >>> sorted(objective.closure(weights_of(objective.module)))
        ['LAMP', 'base']
    """
    if isinstance(model, LampAE):
        return _of_lamp_ae(model, images, target)
    if target is not None:
        msg = f"Expected a target for LampAE only, got {target!r} for {type(model).__name__}. Leave it out."
        raise ValueError(msg)
    return _of_known_loss(model, images)


@torch.no_grad()
def _of_lamp_ae(model: LampAE, images: Tensor, target: str | None) -> Objective:
    parts = {"pixels": model.model.network, "features": model.model.features}
    there = {name: part for name, part in parts.items() if part is not None}
    chosen = next(iter(there)) if target is None else target
    if chosen not in there:
        msg = f"Expected a target from {list(there)}, which is what the model repairs, got {target!r}."
        raise ValueError(msg)
    part = copy.deepcopy(there[chosen]).eval()
    if isinstance(part, FeatureBranch):
        return _of_features(part, images)
    clean = model.model.reduced(images)
    damaged, loss = repeatably(model.corruption, clean), model.loss
    closure = closure_of(part, damaged, lambda output: _means(reconstruction_error(output, clean, str(loss.base))))
    return Objective(part, closure, KINKED if loss.base == "l1" else "")


def _of_features(branch: FeatureBranch, images: Tensor) -> Objective:
    wanted = branch.standardised(branch.features(images)).coarse
    damaged = repeatably(branch.damaged, wanted)
    closure = closure_of(branch.repair, damaged, lambda repaired: _means(branch.repair_error(repaired, wanted)))
    return Objective(branch.repair, closure)


def _means(error: Tensor) -> Mapping[str, Tensor]:
    return {BASE: error.mean(), LAMP: amplify(error).mean()}


def _of_known_loss(model: AnomalibModule, images: Tensor) -> Objective:
    module = _TrainingLoss(model, images)
    changed = type(model).__name__ in ("Dinomaly", "InpFormer")
    return Objective(module, closure_of(module, (), lambda losses: losses), CHANGED_GRADIENTS if changed else "")


class _TrainingLoss(nn.Module):
    """The training loss of a copy of a model, plain and amplified, on images that do not change."""

    def __init__(self, model: AnomalibModule, images: Tensor) -> None:
        super().__init__()
        if any(loss._forward_hooks for loss, _ in losses_of(model).values()):
            msg = f"Expected a {type(model).__name__} that is not amplified, got one that is. Remove its handle first."
            raise ValueError(msg)
        self.model = copy.deepcopy(model, {id(model._trainer): None}).train()
        self.model.log = self.model.log_dict = lambda *_, **__: None  # type: ignore[method-assign, assignment]
        trained, self.step = MODELS.get(type(model).__name__, ((), _training_step))
        if trained:
            self.model.requires_grad_(False)
        for name in trained:
            self.model.get_submodule(name).requires_grad_(True)
        for layer in self.model.modules():
            if isinstance(layer, _NormBase | _DropoutNd):
                layer.eval()
        good = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool)
        self.batch = ImageBatch(image=images, gt_label=good[:, 0, 0], gt_mask=good)
        self.scales: dict[tuple[str, int], float] = {}
        self.surplus: list[Tensor] = []
        for name, (loss, terms) in losses_of(self.model).items():
            loss.register_forward_hook(self._hook(name, terms), with_kwargs=True)
        with torch.no_grad(), common_random_numbers(dict(self.named_parameters())):
            self.forward()  # takes the scales of errors without a bound

    def forward(self) -> Mapping[str, Tensor]:
        """Return the losses by ruler."""
        self.surplus.clear()
        loss = self.step(self.model, self.batch)
        return {BASE: loss, LAMP: loss + torch.stack(self.surplus).sum()}

    def _hook(self, name: str, terms: Terms) -> Callable[..., None]:
        def add(loss: nn.Module, args: tuple, kwargs: dict[str, Any], _: Tensor) -> None:
            for number, term in enumerate(terms(loss, *args, **kwargs)):
                scale = self._scale((name, number), term)
                self.surplus.append(term.weight * (amplify_on_scale(term.errors, scale) - term.errors).sum())

        return add

    def _scale(self, key: tuple[str, int], term: ErrorTerm) -> float:
        """Return the scale of a term; without one, twice the large errors at the centre, as of a first batch."""
        if term.scale is not None:
            return term.scale
        return self.scales.setdefault(key, 2 * large_error(term.errors))


def _training_step(model: Any, batch: ImageBatch) -> Tensor:
    output = model.training_step(batch, 0)
    return output["loss"] if isinstance(output, Mapping) else output


def _ganomaly(model: Any, batch: ImageBatch) -> Tensor:
    """Return the generator's loss; the training step would take a step."""
    padded, fake, latent, latent_again = model.model(batch.image)
    judged = [model.model.discriminator(images)[0] for images in (padded, fake)]
    return model.generator_loss(latent, latent_again, padded, fake, *judged)


def _dsr(model: Any, batch: ImageBatch) -> Tensor:
    """Return the loss of the first phase; the training step would take a step."""
    mask = model.quantized_anomaly_generator.augment_batch(batch.image)
    found = model.model(batch.image, mask)
    names = ("recon_feat_hi", "recon_feat_lo", "embedding_bot", "embedding_top")
    rest = ("obj_spec_image", "anomaly_map", "true_anomaly_map")
    return model.second_stage_loss(*(found[n] for n in names), batch.image, *(found[n] for n in rest))


def _dinomaly(model: Any, batch: ImageBatch) -> Tensor:
    return model.model(batch.image, global_step=DINOMALY_STEP)


MODELS: dict[str, tuple[Iterable[str], Step]] = {  # the modules that are trained, and the loss
    "ReverseDistillation": (("model.decoder", "model.bottleneck"), _training_step),
    "Stfpm": (("model.student_model",), _training_step),
    "Fre": (("model.fre_model",), _training_step),
    "Draem": (("model",), _training_step),
    "Ganomaly": (("model.generator",), _ganomaly),
    "Dsr": (
        (
            "model.image_reconstruction_network",
            "model.subspace_restriction_module_hi",
            "model.subspace_restriction_module_lo",
            "model.anomaly_detection_module",
        ),
        _dsr,
    ),
    "UniNet": (
        ("model.student", "model.bottleneck", "model.dfs", "model.teachers.target_teacher"),
        _training_step,
    ),
    "Dinomaly": (("trainable_modules",), _dinomaly),
    "InpFormer": (("trainable_modules",), _training_step),
}
