"""The refiner of a model's folder on photographs of any size, tile by tile."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..diffusion import FrozenModel
from ..diffusion.folder import CONFIG, read_config
from ..diffusion.pretrained import model_folder
from ..diffusion.refiner import Refiner, load_refiner
from ..errors import SkipDiffError
from ..images.tiling import TiledModel


class TiledRefiner:
    """Gives whole images their last touch.

    Args:
        spec: name or folder of a model that has a refiner.
        model: the model whose results it refines.
        tile: side of a tile in output pixels.
        batch: tiles a network call.

    Raises:
        SkipDiffError: if there is none, or it was made for another scale.
    """

    def __init__(self, spec: str | os.PathLike[str], model: FrozenModel, tile: int, batch: int = 1) -> None:
        folder = model_folder(spec)
        refiner = load_refiner(folder, model.device, model.dtype)
        scale = read_config(folder / CONFIG).scale
        if scale != model.scale:
            raise SkipDiffError(
                f"the refiner of {folder} is for {scale}x, but {model.name!r} enlarges {model.scale}x: "
                "give another"
            )
        self.settings: dict[str, Any] = {"refiner": folder.name, "refiner_hash": refiner.hash}
        self._tiled = TiledModel(_AsModel(refiner, model), tile, batch)

    def __call__(self, x0: Tensor, condition: Tensor) -> Tensor:
        """x̂0 and condition (B, 3, H, W) → the refined image, alike."""
        return self._tiled.predict(x0, condition, torch.ones(len(x0), device=x0.device))


class _AsModel(FrozenModel):
    """A refiner in the shape that tiling takes: the latent is x̂0, and there is no noise."""

    def __init__(self, refiner: Refiner, model: FrozenModel) -> None:
        config = replace(model.config, unet=refiner.network.unet.config)
        super().__init__(refiner.network, config, refiner.device, refiner.dtype, "refiner", refiner.hash)
        self._refine = refiner

    def predict(self, latent: Tensor, condition: Tensor, noise_level: Tensor) -> Tensor:
        """The refined image."""
        return self._refine(latent, condition)
