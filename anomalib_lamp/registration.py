"""The one place that touches anomalib's registries, and timm's."""

import importlib.metadata
import re
from importlib import import_module
from types import ModuleType

HOST_MINIMUM = (2, 7)


def register() -> None:
    """Make our models and datamodules known to anomalib, and our network to timm. Idempotent.

    Importing :mod:`anomalib_lamp` calls this. Afterwards ``get_model("lamp_ae")``, ``get_model({"class_path": ...})``
    with ``LampAE``, ``anomalib_lamp.LampAE`` or ``anomalib.models.LampAE``, ``get_datamodule``, ``anomalib benchmark``
    and the command line find them. Models that take the name of a timm network take ``efficientnet_lite0_packaged``.

    Raises:
        ImportError: If anomalib is missing or older than 2.7.

    Example:
        >>> register()
        >>> from anomalib.models import get_model
        >>> get_model("lamp_ae", max_steps=10).name
        'LampAE'
    """
    require_host()
    # The start-up hook calls this at the end of `import anomalib.models`, when it is not an attribute of anomalib yet.
    host_models, host_data = import_module("anomalib.models"), import_module("anomalib.data")
    from timm.models import is_model, register_model

    from anomalib_lamp import data, models
    from anomalib_lamp.timm_network import efficientnet_lite0_packaged

    _publish(models, host_models)
    _publish(data, host_data)
    host_models.ALLOWED_MODULES.add("anomalib_lamp")
    if not is_model(efficientnet_lite0_packaged.__name__):
        register_model(efficientnet_lite0_packaged)


def _publish(ours: ModuleType, host: ModuleType) -> None:
    """Make every public class of our package an attribute of the host's."""
    for name in ours.__all__:
        setattr(host, name, getattr(ours, name))
        if name not in host.__all__:
            host.__all__.append(name)


def require_host() -> None:
    """Raise unless anomalib is installed in a version that we know."""
    needed = ".".join(map(str, HOST_MINIMUM))
    try:
        version = importlib.metadata.version("anomalib")
    except importlib.metadata.PackageNotFoundError:
        msg = f"anomalib is not installed; `pip install 'anomalib>={needed}'`"
        raise ImportError(msg) from None
    release = re.match(r"(\d+)\.(\d+)", version)
    if release and tuple(map(int, release.groups())) < HOST_MINIMUM:
        msg = f"anomalib {version} is too old; `pip install -U 'anomalib>={needed}'`"
        raise ImportError(msg)
