"""Feature maps of a timm network by names of its layers, and where its weights come from."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants, get_session, try_to_load_from_cache
from timm.models import create_feature_extractor, load_state_dict
from torch import Tensor, fx, nn

from anomalib_lamp.packaged_weights import PACKAGED_NETWORK, load_packaged_weights

logger = logging.getLogger(__name__)

HUB_TIMEOUT_SECONDS = 10
WEIGHT_FORMATS = (".safetensors", ".pth")
MAX_KEYS_NAMED = 3


class Backbone(nn.Module):
    """Return the feature maps of a timm network, batch norm always in evaluation mode.

    anomalib's ``TimmFeatureExtractor`` offers five of EfficientNet's nine levels, renames some networks' weights, and
    registers a network given as a module twice. Here timm traces the network and keeps its names.

    Nothing beyond the last of the layers is computed or kept. Mixed precision is ignored: the whitening of features
    amplifies the rounding of half precision. Weights are random until :meth:`load_weights` is called.

    Args:
        name: Name of a convolutional timm network.
        layers: Names of its modules. If not given: stem, stages and head of EfficientNet and its relatives; of other
            networks the levels that timm lists in ``feature_info``. The stages ``blocks.1``, ``blocks.2`` and
            ``blocks.4`` of ``tf_efficientnet_lite0`` have strides 4, 8 and 16 and 24, 40 and 112 channels.

    Shape:
        Images (N, 3, H, W) in [0, 1], normalised here as the network's pre-training expects, to a list of maps
        (N, C, h, w), one per layer.

    Raises:
        ValueError: If the network or a layer is unknown.

    Example:
        >>> [tuple(maps.shape) for maps in Backbone("resnet18", ["layer1", "layer2"])(torch.rand(1, 3, 64, 64))]
        [(1, 64, 16, 16), (1, 128, 8, 8)]
    """

    image_mean: Tensor
    image_deviation: Tensor

    def __init__(self, name: str = "tf_efficientnet_lite0", layers: Sequence[str] | None = None) -> None:
        super().__init__()
        check_known(name)
        network = timm.create_model(name, pretrained=False, num_classes=0).eval()
        self.name = name
        self.layers = list(layers or default_layers(network))
        try:
            traced = create_feature_extractor(network, self.layers)
        except ValueError as error:
            names = [module for module, _ in network.named_modules() if module.count(".") < 2 and module]
            msg = f"Expected layers of {name!r} among {names} and their submodules, got {self.layers}."
            raise ValueError(msg) from error
        # Of the two graphs traced, for training and evaluation, only the second: a copy of both is in training mode.
        self.network = fx.GraphModule(traced, traced.eval_graph).to(memory_format=torch.channels_last)
        self.eval()
        config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
        self.register_buffer("image_mean", torch.tensor(config["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("image_deviation", torch.tensor(config["std"]).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode: a handful of normal images would ruin the statistics of batch norm."""
        del mode
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return one feature map per layer."""
        with torch.autocast(images.device.type, enabled=False):
            maps = self.network((images.float() - self.image_mean) / self.image_deviation)
        return [maps[layer] for layer in self.layers]

    def load_weights(self, weights: str | Path) -> None:
        """Load weights from one of four sources.

        Args:
            weights: ``packaged`` for the ImageNet weights that are installed with this package, of
                ``tf_efficientnet_lite0`` only; ``timm`` for timm's, which it may have to download; ``random`` to keep
                the weights as they were drawn; else a file of a state dictionary with timm's names, ``.safetensors`` or
                ``.pth``.

        Raises:
            ConnectionError: If timm's weights cannot be had.
            FileNotFoundError: If there is no such file, or the packaged weights are not installed.
            ValueError: If packaged weights are asked for another network, or the file cannot be read, is not of this
                network, or is not the packaged one.
        """
        check_source(weights, self.name)
        if weights == "random":
            return
        if weights == "packaged":
            values: Mapping[str, Tensor] = load_packaged_weights()
        elif weights == "timm":
            values = hub_weights(self.name)
        else:
            values = read_weights(Path(weights))
        check_weights(values, self.network.state_dict(), self.name, weights)
        self.network.load_state_dict(values, strict=False)
        logger.info("Loaded the weights of %s from %s.", self.name, weights)


def check_known(name: str) -> None:
    """Raise ValueError unless timm knows a network by this name."""
    if not timm.is_model(name):
        msg = f"Expected backbone to be the name of a timm network, got {name!r}. See timm.list_models()."
        raise ValueError(msg)


def check_source(weights: str | Path, name: str) -> None:
    """Raise ValueError if packaged weights are asked for a network that they are not of."""
    if weights == "packaged" and name != PACKAGED_NETWORK:
        msg = (
            f"Expected backbone {PACKAGED_NETWORK!r} with weights 'packaged', got {name!r}. Set weights to 'timm' "
            f"(timm's own, downloaded if need be), 'random' or a file, or set backbone to {PACKAGED_NETWORK!r}."
        )
        raise ValueError(msg)


def default_layers(network: nn.Module) -> list[str]:
    """Return stem, stages and head of EfficientNet and its relatives, else the levels that timm lists."""
    if all(hasattr(network, part) for part in ("bn1", "blocks", "conv_head", "bn2")):
        return ["bn1", *(f"blocks.{stage}" for stage in range(len(network.blocks))), "bn2"]  # type: ignore[arg-type]
    return [level["module"] for level in network.feature_info]  # type: ignore[union-attr]


def hub_weights(name: str) -> Mapping[str, Tensor]:
    """Return timm's pre-trained weights; one look at the hub first, where timm would retry for a minute."""
    try:
        repository = getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None)
        if repository and not isinstance(try_to_load_from_cache(repository, "model.safetensors"), str):
            get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_SECONDS)
        return timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # what is raised depends on the version of the hub's client
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        msg = (
            f"The pre-trained weights of {name!r} could not be downloaded ({reason}). "
            f"Three ways out: set weights to a file ({' or '.join(WEIGHT_FORMATS)}) saved on a machine that has them "
            f"from timm.create_model({name!r}, pretrained=True).state_dict(); or set weights to 'random'; or set "
            f"backbone to {PACKAGED_NETWORK!r} and weights to 'packaged'."
        )
        raise ConnectionError(msg) from None


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """Return the state dictionary in a file."""
    if not path.is_file():
        msg = (
            f"Expected weights to be 'packaged', 'timm', 'random' or a file, got {str(path)!r}: there is no such file."
        )
        raise FileNotFoundError(msg)
    try:
        return load_state_dict(str(path), use_ema=False, weights_only=True)
    except Exception as error:  # a foreign file can fail in any way
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        msg = f"Expected {path} to hold a state dictionary of tensors, as {' or '.join(WEIGHT_FORMATS)}; got {reason}."
        raise ValueError(msg) from None


def check_weights(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str, path: str | Path) -> None:
    """Raise ValueError unless every expected tensor is there in its shape; more than expected does no harm."""
    needed = {key: value for key, value in expected.items() if not key.endswith("num_batches_tracked")}
    wrong = [key for key, value in needed.items() if key not in weights or weights[key].shape != value.shape]
    if not wrong:
        return
    listed = [f"{key} {tuple(needed[key].shape)}" for key in wrong[:MAX_KEYS_NAMED]]
    found = [f"{key} {tuple(value.shape)}" for key, value in list(weights.items())[:MAX_KEYS_NAMED]]
    msg = (
        f"{path} does not hold weights of {name!r}: {len(wrong)} of {len(needed)} tensors are missing or of another "
        f"shape. Expected {', '.join(listed)}, ...; the file begins with {', '.join(found)}, .... "
        f"Name the network that the file is of (backbone), or save timm.create_model({name!r}).state_dict()."
    )
    raise ValueError(msg)
