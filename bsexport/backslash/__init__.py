"""BackSlash: training under a rate constraint (ICML 2025), as a library for PyTorch and transformers."""

from bsexport.backslash.constraint import Constraint, attach
from bsexport.backslash.measure import Measurement
from bsexport.backslash.recipe import Epsilon, Rate, Weight

__all__ = ["Constraint", "Epsilon", "Measurement", "Rate", "Weight", "attach"]
