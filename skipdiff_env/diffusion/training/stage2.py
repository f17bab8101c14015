"""CCSR's second stage: a refiner of truncated outputs of a frozen diffusion model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..few_step import CCSR
from ..model import FrozenModel, RefinerConfig, chain_image
from ..pretrained import CONFIG, REFINER, WEIGHTS, write_atomically, write_config, write_weights
from ..refiner import Refiner, RefinerNetwork
from .adversarial import AdversarialTrainer, Attempt
from .blocks import AdversarialRecipe, RefinerRecipe
from .critics import PatchCritic
from .distributed import World
from .features import Lpips
from .recipe import Recipe
from .trainer import Batch, Sampler, few_step_sampler, step_seed


class RefinerTrainer(AdversarialTrainer):
    """Trains a refiner by L1, LPIPS and a patch discriminator.

    Args:
        recipe: with a ``refiner`` block.
        device: where to train.
        world: which rows this process takes.
        model: the frozen model whose truncated outputs are refined.
        folder: its folder, which is copied into what :meth:`export` writes.
    """

    def __init__(
        self, recipe: Recipe, device: torch.device, world: World, model: FrozenModel, folder: Path
    ) -> None:
        assert recipe.refiner is not None
        self.options: RefinerRecipe = recipe.refiner
        self.model, self._folder = model, folder
        super().__init__(recipe, device, world)
        self._lpips = Lpips().to(device)

    @property
    def adversarial(self) -> AdversarialRecipe:
        """The recipe's."""
        return self.options.adversarial

    def build(self) -> nn.Module:
        """The refiner, which starts as the identity."""
        return RefinerNetwork(self.options.unet)

    def build_critic(self) -> nn.Module:
        """A patch discriminator."""
        return PatchCritic()

    def attempt(self, batch: Batch) -> Attempt:
        """Refine what CCSR's chain makes of the batch, with one of the recipe's numbers of steps."""
        hr = chain_image(batch.target, batch.condition, self.recipe.model)
        draws = torch.Generator().manual_seed(step_seed(self.recipe.seed, self.step, "steps"))
        choice = int(torch.randint(len(self.options.steps), (1,), generator=draws))
        truncated = self._truncated(batch, CCSR(self.options.steps[choice]))
        fake = self._forward(truncated, batch.condition)
        losses = {
            "l1": (fake - hr).abs().mean(),
            "lpips": self.options.lpips * self._lpips(fake, hr).mean(),
        }
        return Attempt(fake, hr, losses)

    @torch.no_grad()
    def _truncated(self, batch: Batch, chain: CCSR) -> Tensor:
        last, c, x_top = chain.steps - 1, batch.condition, batch.noise
        seen = chain.approach(self.model, last, c, x_top, lambda i: self.normal(x_top, f"chain {i}"))
        return chain.evaluate(self.model, last, *seen)

    def samplers(self) -> dict[str, Sampler]:
        """Two evaluations without and with the refiner."""
        assert isinstance(self.ema, RefinerNetwork)
        refine, plain = Refiner(self.ema, self.device, self.dtype), few_step_sampler(CCSR(2), self.model)
        return {"CCSR 2": plain, "refined": lambda c, keys: refine(plain(c, keys), c)}

    def frozen(self) -> FrozenModel:
        """The frozen model."""
        return self.model

    def export(self, folder: Path, record: dict[str, Any]) -> None:
        """The frozen model's folder with the refiner in it."""
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / WEIGHTS).exists():
            write_atomically(folder / WEIGHTS, (self._folder / WEIGHTS).read_bytes())
        write_weights(folder / REFINER, self.ema)
        refiner = RefinerConfig(self.options.unet, record)
        write_config(folder / CONFIG, replace(self.model.config, refiner=refiner))
