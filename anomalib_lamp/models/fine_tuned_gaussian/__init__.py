"""FineTunedGaussian: transfer learning with Gaussians and fine-tuned features (Rippel et al. 2021)."""

from .lightning_model import FineTunedGaussian
from .torch_model import FineTunedGaussianModel

__all__ = ["FineTunedGaussian", "FineTunedGaussianModel"]
