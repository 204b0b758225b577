"""Reconstruction-based anomaly detection with loss amplification (LAMP), as a plugin for anomalib.

Importing this package registers its models and datamodules with anomalib. Without a working anomalib the losses and
functions are still there, and a warning says what is missing.
"""

import warnings

from anomalib_lamp import functional
from anomalib_lamp.losses import LampLoss
from anomalib_lamp.registration import register

__version__ = "0.1.0"
__all__ = ["LampLoss", "functional", "register"]

try:
    register()
    from anomalib_lamp.amplification import amplify_loss
    from anomalib_lamp.callbacks import AmplifyLoss
    from anomalib_lamp.data import MNISTOneClass, MVTec, SyntheticParts
    from anomalib_lamp.models import FineTunedGaussian, LampAE

    __all__ += ["AmplifyLoss", "FineTunedGaussian", "LampAE", "MNISTOneClass", "MVTec", "SyntheticParts"]
    __all__ += ["amplify_loss"]
except Exception as error:
    warnings.warn(
        f"anomalib_lamp offers its losses and functions only: {type(error).__name__}: {error}".partition("\n")[0],
        stacklevel=2,
    )
