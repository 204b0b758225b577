"""The handle: which models it takes, what it adds to their losses, what it refuses, what it leaves behind."""

import copy
import importlib.metadata
import pickle

import numpy as np
import pytest
import timm
import torch
import torchvision
from anomalib import models as anomalib_models
from anomalib.models import Dinomaly, Dsr, Fre, InpFormer, Padim, ReverseDistillation, Stfpm, UniNet
from anomalib.models.image.dinomaly.components.loss import CosineHardMiningLoss
from anomalib.models.image.draem.loss import DraemLoss
from anomalib.models.image.dsr.loss import DsrSecondStageLoss
from anomalib.models.image.ganomaly.loss import GeneratorLoss
from anomalib.models.image.inp_former.components.loss import GlobalCosineHmAdaptiveLoss
from anomalib.models.image.reverse_distillation.loss import ReverseDistillationLoss
from anomalib.models.image.stfpm.loss import STFPMLoss
from anomalib.models.image.uninet.components.loss import UniNetLoss
from helpers import make_lamp_ae
from kornia.metrics import ssim
from lightning import LightningModule
from torch import nn

from anomalib_lamp import amplify_loss
from anomalib_lamp.amplification import ErrorTerm, register_loss
from anomalib_lamp.amplification.registry import _registered, losses_of, reason_against


def bare(model_class, **modules):
    """Return a model without its networks, which may need a download: its losses alone."""
    model = model_class.__new__(model_class)
    LightningModule.__init__(model)
    for name, module in modules.items():
        setattr(model, name, module)
    return model


def features(*shape):
    """Return features as of a teacher, and near them, with gradient, as of a student."""
    teacher = torch.randn(shape)
    return teacher, (teacher + 0.5 * torch.randn(shape)).requires_grad_()


def amplified(errors, scale):
    errors = np.asarray(errors, dtype=np.float64)
    relative = np.minimum(errors / scale, 0.9)
    return -scale * np.log(1 - relative) + 10 * (errors - scale * relative)


def scale_of_first(errors):
    return 2 * np.quantile(errors, 0.999, method="inverted_cdf")


def cosine_distances(x, y):
    """Return one distance per row, by a loop."""
    x, y = (t.detach().double().numpy() for t in (x, y))
    return [1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(x, y, strict=True)]


def rows(t):
    """Return one row per image and place of features (N, C, H, W)."""
    return t.movedim(1, -1).flatten(0, 2)


def squares(x, y):
    return (x - y).detach().double().square().numpy().ravel()


def reverse_distillation():
    loss = ReverseDistillationLoss()
    pairs = [features(3, 4, 5, 5), features(3, 8, 2, 2)]
    expected = sum(amplified(cosine_distances(a.flatten(1), b.flatten(1)), 2).mean() for a, b in pairs)
    return bare(ReverseDistillation, loss=loss), loss, ([a for a, _ in pairs], [b for _, b in pairs]), {}, expected


def stfpm():
    loss = STFPMLoss()
    pairs = {"a": features(3, 4, 5, 6), "b": features(3, 8, 2, 2)}
    of_layers = [amplified(cosine_distances(rows(a), rows(b)), 2).sum() / a[0, 0].numel() for a, b in pairs.values()]
    teacher, student = ({name: pair[side] for name, pair in pairs.items()} for side in (0, 1))
    return bare(Stfpm, loss=loss), loss, (teacher, student), {}, sum(of_layers)


def fre():
    loss = nn.MSELoss()
    a, b = features(4, 700)
    errors = squares(a, b)
    return bare(Fre, loss_fn=loss), loss, (a, b), {}, amplified(errors, scale_of_first(errors)).mean()


def draem():
    loss = DraemLoss()
    image, repaired = torch.rand(2, 3, 16, 16), (1.5 * torch.rand(2, 3, 16, 16)).requires_grad_()
    mask, prediction = (torch.rand(2, 1, 16, 16) > 0.5).float(), torch.randn(2, 2, 16, 16)
    dissimilarity = ((1 - ssim(repaired, image, 11)) / 2).detach().numpy()
    expected = (
        amplified(squares(repaired, image), 1).mean()
        + 2 * amplified(dissimilarity, 1).mean()
        + loss.focal_loss(prediction, mask.squeeze(1).long()).item()
    )
    return bare(anomalib_models.Draem, loss=loss), loss, (image, repaired, mask, prediction), {}, expected


def ganomaly():
    loss = GeneratorLoss()
    z, z_again = features(4, 10)
    image = torch.rand(4, 3, 8, 8) * 4.7 - 2.1
    fake = torch.tanh(torch.randn(4, 3, 8, 8)).requires_grad_()
    real, judged = torch.rand(4), torch.rand(4)
    distance = (image - fake).detach().abs().numpy()
    expected = (
        50 * amplified(distance, 1 + 0.594 / 0.225).mean()
        + (real - judged).square().mean().item()
        + nn.functional.smooth_l1_loss(z, z_again).item()
    )
    model = bare(anomalib_models.Ganomaly, generator_loss=loss)
    return model, loss, (z, z_again, image, fake, real, judged), {}, expected


def dsr():
    loss = DsrSecondStageLoss()
    (high, quantised_high), (low, quantised_low), (image, made) = (features(2, 3, 8, 8) for _ in range(3))
    seg, mask = torch.randn(2, 2, 8, 8), (torch.rand(2, 1, 8, 8) > 0.5).float()
    pairs = [squares(high, quantised_high), squares(low, quantised_low)]
    expected = (
        sum(amplified(errors, scale_of_first(errors)).mean() for errors in pairs)
        + 10 * amplified(squares(image, made), 1).mean()
        + loss.focal_loss(seg, mask.squeeze(1).long()).item()
    )
    model = bare(Dsr, second_stage_loss=loss)
    return model, loss, (high, low, quantised_high, quantised_low, image, made, seg, mask), {}, expected


def uninet():
    loss = UniNetLoss(temperature=0.1)
    pairs = [features(2, 6, 4, 4), features(2, 8, 2, 2)]
    student, teacher = [b for _, b in pairs], [a for a, _ in pairs]
    arguments = {"mask": torch.zeros(2), "stop_gradient": False}
    of_layers = [np.array(cosine_distances(rows(a), rows(b))) for a, b in pairs]
    rest = loss(student, teacher, **arguments).item() - 0.7 * sum(errors.mean() for errors in of_layers)
    expected = rest + 0.7 * sum(amplified(errors, 2).mean() for errors in of_layers)
    model = bare(UniNet, loss=loss, model=nn.Module())
    model.model.loss = loss  # anomalib holds it twice
    return model, loss, (student, teacher), arguments, expected


def dinomaly():
    loss = CosineHardMiningLoss()
    pairs = [features(3, 4, 5, 5), features(3, 4, 5, 5)]
    expected = np.mean([amplified(cosine_distances(a.flatten(1), b.flatten(1)), 2).mean() for a, b in pairs])
    arguments = {
        "encoder_features": [a for a, _ in pairs],
        "decoder_features": [b for _, b in pairs],
        "global_step": 1000,
    }
    model = bare(Dinomaly, model=nn.Module())
    model.model.loss_fn = loss
    return model, loss, (), arguments, expected


def inp_former():
    loss = GlobalCosineHmAdaptiveLoss()
    pairs = [features(3, 4, 5, 5), features(3, 4, 5, 5)]
    coherence = torch.tensor(0.3)
    expected = np.mean([amplified(cosine_distances(a.flatten(1), b.flatten(1)), 2).mean() for a, b in pairs])
    arguments = {"encoder_features": [a for a, _ in pairs], "decoder_features": [b for _, b in pairs]}
    model = bare(InpFormer, model=nn.Module())
    model.model.loss = loss
    return model, loss, (), {**arguments, "inp_loss": coherence}, expected + 0.2 * 0.3


CASES = [reverse_distillation, stfpm, fre, draem, ganomaly, dsr, uninet, dinomaly, inp_former]
ALL_CASES = pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)


def tensors(*values):
    """Yield all tensors in nested lists and dictionaries."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(*value)
        elif isinstance(value, dict):
            yield from tensors(*value.values())


@ALL_CASES
def test_the_amplified_loss_equals_a_plain_derivation(case):
    model, loss, args, kwargs, expected = case()
    base = loss(*args, **kwargs).item()
    with amplify_loss(model, first_batches=1):
        loss(*args, **kwargs)  # the batch from which scales are taken, if any
        assert loss(*args, **kwargs).item() == pytest.approx(expected, rel=2e-5)
    assert expected > base * (1 + 1e-4)
    assert loss(*args, **kwargs).item() == base


@ALL_CASES
def test_gradients_are_finite_in_bfloat16(case):
    model, loss, args, kwargs, _ = case()
    learnt = [t for t in tensors(args, kwargs) if t.requires_grad]
    with amplify_loss(model, first_batches=1), torch.autocast("cpu", torch.bfloat16):
        loss(*args, **kwargs)
        loss(*args, **kwargs).backward()
    assert learnt
    assert all(torch.isfinite(t.grad).all() and t.grad.abs().sum() > 0 for t in learnt)


@ALL_CASES
def test_measuring_alone_leaves_the_loss_and_its_gradients_to_the_bit(case):
    values = []
    for measuring in (False, True):
        torch.manual_seed(0)
        model, loss, args, kwargs, _ = case()
        handle = amplify_loss(model, amplify=False, first_batches=1) if measuring else None
        value = loss(*args, **kwargs)
        learnt = [t for t in tensors(args, kwargs) if t.requires_grad]
        values.append([value, *torch.autograd.grad(value, learnt)])
    assert all(map(torch.equal, *values))
    assert loss(*args, **kwargs).item() == value.item()
    median, p99 = handle.multipliers()
    assert 1 <= median < p99 <= 10


def test_gradients_of_dinomaly_are_still_modified_by_its_loss():
    model, loss, _, arguments, _ = dinomaly()
    learnt = arguments["decoder_features"]
    with amplify_loss(model):
        gradients = torch.autograd.grad(loss(**arguments), learnt)
    for encoder, decoder, gradient in zip(arguments["encoder_features"], learnt, gradients, strict=True):
        leaf = decoder.detach().requires_grad_()
        cosine = torch.cosine_similarity(encoder.flatten(1), leaf.flatten(1))
        (-2 * torch.log(1 - (1 - cosine) / 2)).mean().div(len(learnt)).backward()
        distance = 1 - torch.cosine_similarity(encoder, decoder.detach())
        hardest = distance >= distance.flatten().sort(descending=True).values[int(distance.numel() * 0.1) - 1]
        torch.testing.assert_close(gradient, leaf.grad * torch.where(hardest, 1, 0.1).unsqueeze(1))


@pytest.fixture
def random_weights(monkeypatch):
    """Let models that always load weights, from the network, start from random ones."""
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: create(*args, **{**kwargs, "pretrained": False}))
    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", lambda *_, **__: None)
    monkeypatch.setattr(torchvision.models.ResNet, "load_state_dict", lambda *_, **__: None)


@pytest.mark.usefixtures("random_weights")
@pytest.mark.parametrize(
    ("model_class", "arguments", "place", "of_training"),
    [
        (InpFormer, {"encoder_name": "vit_small_patch14_reg4_dinov2"}, "model.loss", {}),
        (Dinomaly, {"encoder_name": "vit_small_patch14_reg4_dinov2"}, "model.loss_fn", {"global_step": 5}),
        (UniNet, {}, "loss", {"masks": torch.zeros(2, 64, 64), "labels": torch.zeros(2)}),
    ],
)
def test_losses_are_where_whole_models_call_them(model_class, arguments, place, of_training):
    model = model_class(**arguments, visualizer=False).train()
    images = torch.rand(2, 3, *(64, 64) if model_class is UniNet else (56, 56))

    def loss():
        torch.manual_seed(0)
        return model.model(images, **of_training)

    plain = loss()
    assert list(losses_of(model)) == [place]
    with amplify_loss(model) as handle:
        amplified = loss()
    assert amplified > plain
    assert handle.multipliers()[1] > 1


def test_only_the_first_phase_of_dsr_is_amplified():
    assert list(losses_of(Dsr(visualizer=False))) == ["second_stage_loss"]


def test_every_model_of_anomalib_is_known_or_has_a_reason():
    amplifiable = {"ReverseDistillation", "Stfpm", "Fre", "Draem", "Ganomaly", "Dsr", "UniNet", "Dinomaly", "InpFormer"}
    ours = {"LampAE", "FineTunedGaussian"}
    for name in set(anomalib_models.__all__) - ours:
        reason = reason_against(getattr(anomalib_models, name))
        assert (reason is None) == (name in amplifiable), name
        assert reason is None or "is not a model of anomalib" not in reason, name
    assert len(CASES) == len(amplifiable)


def test_the_scale_of_unbounded_errors_is_twice_the_mean_of_large_errors_and_then_frozen():
    loss = nn.MSELoss()
    handle = amplify_loss(bare(Fre, loss_fn=loss), first_batches=3)
    batches = [features(2, 3000) for _ in range(5)]
    for number, (a, b) in enumerate(batches):
        value = loss(a, b).item()
        assert (value == pytest.approx(squares(a, b).mean(), rel=1e-6)) == (number < 3)
    large = [np.quantile(squares(a, b), 0.999, method="inverted_cdf") for a, b in batches[:3]]
    assert handle.scales() == {"loss_fn.0": pytest.approx(2 * np.mean(large), rel=1e-6)}


def test_all_processes_take_the_mean_of_their_scales(monkeypatch):
    """The other process of two has found 3."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.add_(3))
    loss = nn.MSELoss()
    handle = amplify_loss(bare(Fre, loss_fn=loss), first_batches=1)
    loss(torch.ones(2, 5, requires_grad=True), torch.zeros(2, 5))
    assert handle.scales() == {"loss_fn.0": 2 * (1 + 3) / 2}


def test_without_gradients_nothing_is_amplified_or_learnt():
    loss = nn.MSELoss()
    handle = amplify_loss(bare(Fre, loss_fn=loss), first_batches=1)
    a, b = features(2, 100)
    with torch.no_grad():
        assert loss(a, b).item() == loss(a, b).item() == pytest.approx(squares(a, b).mean())
    assert handle.scales() == {}
    assert handle.multipliers() is None


def test_multipliers_are_told_once():
    model, loss, args, _, _ = reverse_distillation()
    handle = amplify_loss(model)
    loss(*args)
    errors = np.array([cosine_distances(a.flatten(1), b.flatten(1)) for a, b in zip(*args, strict=True)])
    assert handle.multipliers() == pytest.approx(np.quantile(1 / (1 - errors / 2), [0.5, 0.99]), rel=1e-5)
    assert handle.multipliers() is None


def test_remove_may_be_called_again_and_leaves_a_model_that_can_be_amplified_and_pickled():
    model, *_ = fre()
    before = pickle.dumps(model.loss_fn)
    handle = amplify_loss(model)
    handle.remove()
    handle.remove()
    assert len(pickle.dumps(model.loss_fn)) == len(before)
    assert b"anomalib_lamp" not in pickle.dumps(model.loss_fn)
    amplify_loss(model)


def test_an_amplified_model_is_not_amplified_again_nor_pickled_but_copied():
    model, *_ = fre()
    amplify_loss(model)
    with pytest.raises(ValueError, match=r"Expected a Fre that is not amplified, got one that is\. Remove its first"):
        amplify_loss(model)
    with pytest.raises(TypeError, match="call `remove\\(\\)`"):
        pickle.dumps(model.loss_fn)
    assert isinstance(copy.deepcopy(model.loss_fn), nn.MSELoss)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: bare(Padim), "got Padim. Padim fits memories or distributions to features, without a loss"),
        (lambda: bare(anomalib_models.Cflow), "Cflow trains for the likelihood of features"),
        (lambda: bare(anomalib_models.EfficientAd), "EfficientAd computes its errors inside of its network"),
        (lambda: make_lamp_ae(), "Its loss is LampLoss, which amplifies by itself; see its argument `amplify`"),
        (lambda: nn.Linear(1, 1), "got Linear. Linear is not a model of anomalib 2.7.0. A loss that is a module"),
    ],
)
def test_a_model_without_a_known_loss_is_refused_with_the_reason(model, message):
    with pytest.raises(ValueError, match="Expected a model with a reconstruction loss") as error:
        amplify_loss(model())
    assert message in str(error.value)


@pytest.mark.parametrize("version", ["2.7.1", "2.8.0", "3.0rc1"])
def test_losses_of_another_anomalib_are_not_guessed(version, monkeypatch):
    model, *_ = stfpm()
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    with pytest.raises(RuntimeError, match=rf"Expected anomalib 2\.7\.0, whose losses are known, got {version}"):
        amplify_loss(model)


def test_first_batches_of_none_are_refused():
    with pytest.raises(ValueError, match="Expected first_batches of 1 or more, got 0"):
        amplify_loss(fre()[0], first_batches=0)


def test_an_exceeded_bound_is_told():
    model, loss, (z, z_again, image, fake, real, judged), _, _ = ganomaly()
    amplify_loss(model)
    with pytest.raises(ValueError, match=r"Expected errors of at most 3\.64 for generator_loss\.0, got 2"):
        loss(z, z_again, image * 0 + 255, fake, real, judged)


@pytest.mark.parametrize("error", [0.0, float("inf"), float("nan")])
def test_first_errors_that_give_no_scale_are_told(error):
    loss = nn.MSELoss()
    amplify_loss(bare(Fre, loss_fn=loss), first_batches=1)
    with pytest.raises(ValueError, match=r"Expected errors above 0 and finite in the first batches, got a sum of"):
        loss(torch.full((2, 5), error, requires_grad=True), torch.zeros(2, 5))


class MyLoss(nn.Module):
    def forward(self, x, y):
        return (x - y).abs().mean() + 1


class MyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.ModuleDict({"head": MyLoss()})


@pytest.fixture
def registry():
    """Forget what a test registers."""
    before = list(_registered)
    yield
    _registered[:] = before


@pytest.mark.usefixtures("registry")
def test_a_loss_of_your_own_can_be_registered_whatever_the_version_of_anomalib(monkeypatch):
    def terms(loss, x, y):
        assert isinstance(loss, MyLoss)
        return [ErrorTerm((x - y).abs(), 1 / x.numel(), scale=1.0)]

    model = MyModel()
    with pytest.raises(ValueError, match="register_loss"):
        amplify_loss(model)
    register_loss(MyLoss, terms)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "99")
    x, y = torch.rand(2, 50)
    amplify_loss(model)
    value = model.network["head"](x, y).item()
    assert value == pytest.approx(1 + amplified((x - y).abs(), 1).mean(), rel=1e-5)
