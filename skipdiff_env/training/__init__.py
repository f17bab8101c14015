"""Training of the diffusion model (Step 1 of the paper), and of refiners, restorers and AddSR's students.

It needs only torch, NumPy, OpenCV, safetensors and PyYAML; ST-LPIPS as a loss needs stlpips_pytorch, too.
"""

from .recipe import Recipe, available_recipes, load_recipe
from .start import TrainResult, train

__all__ = ["Recipe", "TrainResult", "available_recipes", "load_recipe", "train"]
