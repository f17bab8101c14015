"""Training a restorer, which removes from LR what cameras and web sites did to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...chains import Chain
from ...diffusion.folder import CONFIG, RESTORER, WEIGHTS, write_config, write_weights
from ...diffusion.model import FrozenModel
from ...diffusion.pretrained import load_pretrained
from ...diffusion.resize import to_signed
from ...diffusion.restorer import Restorer, RestorerNetwork
from ...errors import SkipDiffError
from ...files import write_atomically
from ..blocks import RestorerRecipe
from ..distributed import World
from ..recipe import Recipe
from .base import Batch, Trainer
from .validation import Validation, usual_chains


class RestorerTrainer(Trainer):
    """Trains a restorer with L1 between the restored LR and the LR before degradation, both in [-1, 1].

    L1's optimum is the median of what a pixel can have been, so the restorer invents nothing.

    Args:
        recipe: recipe with a ``restorer`` block.
        device: device to train on.
        world: this process's place among those that train together.
        model: the frozen model that the restorer is for; it serves only for validation.
        folder: folder of that model, whose weights :meth:`export` copies.
    """

    is_diffusion = False

    def __init__(
        self, recipe: Recipe, device: torch.device, world: World, model: FrozenModel, folder: Path
    ) -> None:
        assert recipe.restorer is not None
        self.options: RestorerRecipe = recipe.restorer
        self.model = self.learnt_from = model
        self._folder = folder
        super().__init__(recipe, device, world)
        self.began_from: dict[str, str] = {}
        """Name of the model whose restorer it started from, and that restorer's hash; empty: the identity."""
        self.earlier_legs: list[dict[str, Any]] = []
        """The legs of that restorer's training."""
        if self.options.init:
            self._start_from(self.options.init)

    def _start_from(self, source: str) -> None:
        began = load_pretrained(source, "cpu")
        if began.restorer is None or replace(began.restorer.config, training={}) != self.options.network:
            raise SkipDiffError(f"restorer.init: {source} has no restorer of this architecture")
        self.network.load_state_dict(began.restorer.network.state_dict())
        self.restart_ema()
        self.began_from = {"restorer_of": began.name, "restorer_hash": began.restorer.hash}
        self.earlier_legs = began.restorer.config.training.get("legs", [])

    def build(self) -> nn.Module:
        """Build the restorer, which starts as the identity."""
        return RestorerNetwork(self.options.network)

    def _loss(self, batch: Batch) -> Tensor:
        lr, clean = to_signed(batch.lr), to_signed(batch.clean)
        loss = (self._forward(lr) - clean).abs().mean()
        self.parts = {"left": loss.detach() / (lr - clean).abs().mean().clamp(min=1e-6)}
        return loss

    def _restorer(self) -> Restorer:
        assert isinstance(self.ema, RestorerNetwork)
        return Restorer(self.ema, self.options.network, self.device, self.dtype)

    def frozen(self) -> FrozenModel:
        """Return the frozen model behind the moving average of the restorer."""
        model = self.model
        return FrozenModel(
            model.network, model.config, self.device, model.dtype, model.name, restorer=self._restorer()
        )

    def chains(self) -> dict[str, Chain]:
        """Return SkipDiff's chain, which shows what the model makes of restored LR."""
        return {name: chain for name, chain in usual_chains(self.model).items() if name == "skip"}

    def measured(self, validation: Validation) -> dict[str, float]:
        """Return the mean error of restored LR, in [-1, 1], and its ratio to the error before."""
        return validation.restoring(self._restorer())

    def export(self, folder: Path, record: dict[str, Any]) -> None:
        """Write a copy of the frozen model's folder with the restorer in it."""
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / WEIGHTS).exists():
            write_atomically(folder / WEIGHTS, (self._folder / WEIGHTS).read_bytes())
        write_weights(folder / RESTORER, self.ema)
        restorer = replace(self.options.network, training=record)
        config = self.model.config
        chain = None if config.refiner else config.chain
        # The start and the figures are those of the model without a restorer.
        made = replace(config, start=None, chain=chain, quality={}, refiner=None, restorer=restorer)
        write_config(folder / CONFIG, made)
