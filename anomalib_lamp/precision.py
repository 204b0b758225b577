"""Where mixed precision pays."""

from collections.abc import Mapping
from typing import Any

import torch


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether a device has units that multiply bfloat16: a GPU with tensor cores, or a processor with AMX.

    Example:
        >>> has_fast_bfloat16(torch.device("meta"))
        False
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch cannot tell
    return device.type == "cpu" and bool(capabilities.get("amx_bf16"))
