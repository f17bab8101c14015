"""Training of the diffusion model (Step 1 of the paper). It needs only torch, numpy, OpenCV, safetensors and
PyYAML."""

from .recipe import Recipe, available_recipes, load_recipe
from .start import TrainResult, train

__all__ = ["Recipe", "TrainResult", "available_recipes", "load_recipe", "train"]
