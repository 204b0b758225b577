"""A timm network with its ImageNet weights at hand, for anomalib's models, which take a network by its name."""

from typing import Any

from timm.models.efficientnet import tf_efficientnet_lite0
from torch import nn

from anomalib_lamp.packaged_weights import load_packaged_weights

__all__ = ["efficientnet_lite0_packaged"]


def efficientnet_lite0_packaged(pretrained: bool = False, **options: Any) -> nn.Module:
    """Return timm's ``tf_efficientnet_lite0``; if ``pretrained``, with the packaged weights instead of downloaded ones.

    :func:`anomalib_lamp.register` makes the name known to timm.

    Args:
        pretrained: Whether to load the packaged weights; else they are random.
        **options: Options of ``timm.create_model``, such as ``features_only``, ``num_classes`` and ``in_chans``.

    Raises:
        FileNotFoundError: If ``pretrained``, and the package with the weights is not installed.
        ValueError: If ``pretrained``, and the file of weights is not the one that is known.

    Example:
        >>> import timm
        >>> network = timm.create_model("efficientnet_lite0_packaged", pretrained=True, features_only=True)
        >>> network.feature_info.module_name(), network.feature_info.channels()
        (['blocks.0', 'blocks.1', 'blocks.2', 'blocks.4', 'blocks.6'], [16, 24, 40, 112, 320])
    """
    if not pretrained:
        return tf_efficientnet_lite0(pretrained=False, **options)
    configuration = {**(options.pop("pretrained_cfg_overlay", None) or {}), "state_dict": load_packaged_weights()}
    network = tf_efficientnet_lite0(pretrained=True, pretrained_cfg_overlay=configuration, **options)
    del network.pretrained_cfg["state_dict"]  # else every copy and export would hold the weights twice
    return network
