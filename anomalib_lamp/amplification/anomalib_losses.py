"""The reconstruction terms of the losses of anomalib 2.7.0, and why its other models have none."""

from collections.abc import Iterator
from copy import copy

import torch
from anomalib.models import Dinomaly, Draem, Dsr, Fre, Ganomaly, InpFormer, ReverseDistillation, Stfpm, UniNet
from anomalib.models.image.dinomaly.components.loss import CosineHardMiningLoss
from anomalib.models.image.draem.loss import DraemLoss
from anomalib.models.image.dsr.loss import DsrSecondStageLoss
from anomalib.models.image.ganomaly.loss import GeneratorLoss
from anomalib.models.image.inp_former.components.loss import GlobalCosineHmAdaptiveLoss
from anomalib.models.image.reverse_distillation.loss import ReverseDistillationLoss
from anomalib.models.image.stfpm.loss import STFPMLoss
from anomalib.models.image.uninet.components.loss import UniNetLoss
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_lamp.functional import at_least_float32

from .registry import ErrorTerm, KnownLoss

COSINE_BOUND = 2.0
TANH_TO_NORMALISED_BOUND = 1 + (1 - 0.406) / 0.225  # from -1 to the brightest blue, normalised by ImageNet's figures


def reverse_distillation(
    loss: nn.Module, encoder_features: list[Tensor], decoder_features: list[Tensor]
) -> Iterator[ErrorTerm]:
    """Yield a cosine distance per image for each layer."""
    del loss
    yield from _distances_of_images(encoder_features, decoder_features)


def stfpm(
    loss: nn.Module, teacher_features: dict[str, Tensor], student_features: dict[str, Tensor]
) -> Iterator[ErrorTerm]:
    """Yield half the squared distance of unit vectors, a cosine distance, per image and place for each layer."""
    del loss
    for layer, teacher in teacher_features.items():
        difference = _unit(teacher) - _unit(student_features[layer])
        yield ErrorTerm(0.5 * difference.square().sum(1), 1 / teacher.shape[2:].numel(), COSINE_BOUND)


def fre(loss: nn.Module, features_in: Tensor, features_out: Tensor) -> Iterator[ErrorTerm]:
    """Yield the squared difference per feature, which has no bound."""
    yield _mean(_per_element(loss, features_in, features_out))


def draem(
    loss: DraemLoss, input_image: Tensor, reconstruction: Tensor, anomaly_mask: Tensor, prediction: Tensor
) -> Iterator[ErrorTerm]:
    """Yield the squared difference and (1 - SSIM) / 2 per value; the reconstruction is not clamped to [0, 1]."""
    del anomaly_mask, prediction
    yield _mean(_per_element(loss.l2_loss, reconstruction, input_image), scale=1.0, bounded=False)
    yield _mean(_per_element(loss.ssim_loss, reconstruction, input_image), 2.0, scale=1.0)


def ganomaly(
    loss: GeneratorLoss,
    latent_i: Tensor,
    latent_o: Tensor,
    images: Tensor,
    fake: Tensor,
    pred_real: Tensor,
    pred_fake: Tensor,
) -> Iterator[ErrorTerm]:
    """Yield the absolute difference per value of normalised images and what a tanh returned."""
    del latent_i, latent_o, pred_real, pred_fake
    yield _mean(_per_element(loss.loss_con, images, fake), loss.wcon, scale=TANH_TO_NORMALISED_BOUND)


def dsr(
    loss: DsrSecondStageLoss,
    recon_nq_hi: Tensor,
    recon_nq_lo: Tensor,
    qu_hi: Tensor,
    qu_lo: Tensor,
    input_image: Tensor,
    gen_img: Tensor,
    seg: Tensor,
    anomaly_mask: Tensor,
) -> Iterator[ErrorTerm]:
    """Yield squared differences of two latents and of images; the generated image is not clamped to [0, 1]."""
    del seg, anomaly_mask
    yield _mean(_per_element(loss.l2_loss, recon_nq_hi, qu_hi))
    yield _mean(_per_element(loss.l2_loss, recon_nq_lo, qu_lo))
    yield _mean(_per_element(loss.l2_loss, input_image, gen_img), 10.0, scale=1.0, bounded=False)


def uninet(
    loss: UniNetLoss,
    student_features: list[Tensor],
    teacher_features: list[Tensor],
    margin: int = 1,
    mask: Tensor | None = None,
    stop_gradient: bool = False,
) -> Iterator[ErrorTerm]:
    """Yield a cosine distance per image and place for each layer."""
    del margin, mask
    for student, teacher in zip(student_features, teacher_features, strict=False):
        distances = _cosine_distance(student, teacher.detach() if stop_gradient else teacher)
        yield _mean(distances, loss.lambda_weight, scale=COSINE_BOUND)


def dinomaly(
    loss: nn.Module, encoder_features: list[Tensor], decoder_features: list[Tensor], global_step: int
) -> Iterator[ErrorTerm]:
    """Yield a cosine distance per image for each layer; what the loss does to the gradients, it does to theirs too."""
    del loss, global_step
    yield from _distances_of_images([e.detach() for e in encoder_features], decoder_features, 1 / len(encoder_features))


def inp_former(
    loss: nn.Module, encoder_features: list[Tensor], decoder_features: list[Tensor], inp_loss: Tensor
) -> Iterator[ErrorTerm]:
    """Yield a cosine distance per image for each layer; what the loss does to the gradients, it does to theirs too."""
    del loss, inp_loss
    yield from _distances_of_images([e.detach() for e in encoder_features], decoder_features, 1 / len(encoder_features))


def _distances_of_images(targets: list[Tensor], features: list[Tensor], weight: float = 1.0) -> Iterator[ErrorTerm]:
    for target, feature in zip(targets, features, strict=True):
        yield _mean(_cosine_distance(target.flatten(1), feature.flatten(1)), weight, scale=COSINE_BOUND)


def _cosine_distance(x: Tensor, y: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(at_least_float32(x), at_least_float32(y), dim=1)


def _unit(features: Tensor) -> Tensor:
    return F.normalize(at_least_float32(features))


def _per_element(loss: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return what a loss of torch or kornia averages."""
    unreduced = copy(loss)
    unreduced.reduction = "none"  # type: ignore[assignment]
    return unreduced.forward(at_least_float32(x), at_least_float32(y))  # a call would run the loss's hooks


def _mean(errors: Tensor, weight: float = 1.0, scale: float | None = None, bounded: bool = True) -> ErrorTerm:
    return ErrorTerm(errors, weight / errors.numel(), scale, bounded)


LOSSES = [
    KnownLoss(ReverseDistillationLoss, reverse_distillation, ReverseDistillation),
    KnownLoss(STFPMLoss, stfpm, Stfpm),
    KnownLoss(torch.nn.MSELoss, fre, Fre),
    KnownLoss(DraemLoss, draem, Draem),
    KnownLoss(GeneratorLoss, ganomaly, Ganomaly),
    KnownLoss(DsrSecondStageLoss, dsr, Dsr),
    KnownLoss(UniNetLoss, uninet, UniNet),
    KnownLoss(CosineHardMiningLoss, dinomaly, Dinomaly),
    KnownLoss(GlobalCosineHmAdaptiveLoss, inp_former, InpFormer),
]
REASONS = {
    "fits memories or distributions to features, without a loss": (
        "AiVad", "AnomalyDINO", "Dfkde", "Dfm", "Fuvas", "MHPatchcore", "Padim", "Patchcore", "Rad", "SuperADD"
    ),
    "trains for the likelihood of features, not for a reconstruction": (
        "Cflow", "Csflow", "Fastflow", "Patchflow", "Uflow"
    ),
    "trains features to lie near memorised ones, not for a reconstruction": ("Cfa",),
    "trains to tell normal from disturbed features, not for a reconstruction": (
        "GeneralAD", "Glass", "Supersimplenet"
    ),
    "judges without training on your images": ("AnomalyVFM", "VlmAd", "WinClip"),
    "computes its errors inside of its network, where no loss can be amplified": (
        "CFM", "EfficientAd", "FoundAD", "L2BT"
    ),
}  # fmt: skip
WITHOUT_RECONSTRUCTION = {name: reason for reason, names in REASONS.items() for name in names}
