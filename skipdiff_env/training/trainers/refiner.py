"""CCSR's second stage: training a refiner on truncated outputs of a frozen diffusion model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...chains import CCSR, Chain, Refined
from ...diffusion.folder import CONFIG, REFINER, RESTORER, WEIGHTS, read_config, write_config, write_weights
from ...diffusion.model import FrozenModel, RefinerConfig, chain_image
from ...diffusion.noise import NoiseKey
from ...diffusion.pretrained import model_folder
from ...diffusion.refiner import Refiner, RefinerNetwork, load_refiner
from ...diffusion.resize import to_signed, to_uint8
from ...errors import SkipDiffError
from ...files import write_atomically
from ...metrics.shift_tolerant import ShiftTolerantLpips
from ..blocks import POOL, AdversarialRecipe, RefinerRecipe
from ..distributed import World
from ..recipe import Recipe
from .adversarial import AdversarialTrainer, Attempt
from .base import Batch, step_seed
from .critics import PatchCritic
from .features import Lpips


class RefinerTrainer(AdversarialTrainer):
    """Trains a refiner with L1, up to two perceptual distances, and a patch discriminator.

    Args:
        recipe: recipe with a ``refiner`` block.
        device: device to train on.
        world: this process's place among those that train together.
        model: the frozen model whose truncated outputs are refined.
        folder: folder of that model, whose weights :meth:`export` copies.
    """

    def __init__(
        self, recipe: Recipe, device: torch.device, world: World, model: FrozenModel, folder: Path
    ) -> None:
        assert recipe.refiner is not None
        self.options: RefinerRecipe = recipe.refiner
        self.model = self.learnt_from = model
        self._folder = folder
        super().__init__(recipe, device, world, model.restorer)
        self._distances: dict[str, tuple[float, nn.Module]] = {}
        if self.options.lpips:
            self._distances["lpips"] = self.options.lpips, Lpips().to(device)
        if self.options.vgg:
            self._distances["vgg"] = self.options.vgg, ShiftTolerantLpips("vgg").to(device)
        self.began_from: dict[str, str] = {}
        """Name of the model whose refiner it started from, and the refiner's hash; empty for the identity."""
        self.earlier_legs: list[dict[str, Any]] = []
        """The legs of that refiner's training."""
        if self.options.init:
            self._start_from(self.options.init)
        self._rows = world.rows(recipe.batch)
        self._made: dict[int, Tensor] = {}

    def _start_from(self, source: str) -> None:
        began = load_refiner(source)
        if began.network.unet.config != self.options.unet:
            raise SkipDiffError(f"refiner.init: the refiner of {source} has another architecture")
        self.network.load_state_dict(began.network.state_dict())
        self.restart_ema()
        folder = model_folder(source)
        record = read_config(folder / CONFIG).refiner
        self.began_from = {"refiner_of": folder.name, "refiner_hash": began.hash}
        self.earlier_legs = record.training.get("legs", []) if record else []

    @property
    def adversarial(self) -> AdversarialRecipe:
        """The recipe's settings of the discriminator."""
        return self.options.adversarial

    def build(self) -> nn.Module:
        """Build the refiner, which starts as the identity."""
        return RefinerNetwork(self.options.unet)

    def build_critic(self) -> nn.Module:
        """Build a patch discriminator."""
        return PatchCritic()

    def attempt(self, batch: Batch) -> Attempt:
        """Refine the results of CCSR's chain for the batch, with one of the recipe's numbers of steps."""
        hr = chain_image(batch.target, batch.condition, self.recipe.model)
        fake = self._forward(to_signed(self._truncated(batch)), batch.condition)
        losses = {"l1": (fake - hr).abs().mean()}
        for name, (weight, distance) in self._distances.items():
            losses[name] = weight * distance(fake, hr).mean()
        return Attempt(fake, hr, losses)

    @torch.no_grad()
    def _truncated(self, batch: Batch) -> Tensor:
        """Return the chain's results, uint8 as refiners see them; kept for when the batch is used again."""
        if batch.number not in self._made:
            draws = torch.Generator().manual_seed(step_seed(self.recipe.seed, batch.number, "steps"))
            choice = int(torch.randint(len(self.options.steps), (1,), generator=draws))
            keys = [NoiseKey(batch.number, row) for row in range(self.recipe.batch)[self._rows]]
            made = CCSR(self.options.steps[choice])(self.model, batch.condition, keys).x0
            self._made[batch.number] = to_uint8(made)
            self._made.pop(batch.number - (POOL if self.options.reuse > 1 else 1), None)
        return self._made[batch.number]

    @property
    def _usual(self) -> int:
        return max(self.options.steps, key=self.options.steps.count)

    def chains(self) -> dict[str, Chain]:
        """Return the chain that the refiner is meant for, without and with it."""
        assert isinstance(self.ema, RefinerNetwork)
        plain = CCSR(self._usual)
        return {
            f"CCSR {self._usual}": plain,
            "refined": Refined(plain, Refiner(self.ema, self.device, self.dtype)),
        }

    def frozen(self) -> FrozenModel:
        """Return the frozen model."""
        return self.model

    def export(self, folder: Path, record: dict[str, Any]) -> None:
        """Write a copy of the frozen model's folder with the refiner in it."""
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / WEIGHTS).exists():
            write_atomically(folder / WEIGHTS, (self._folder / WEIGHTS).read_bytes())
        if self.restorer:
            write_atomically(folder / RESTORER, (self._folder / RESTORER).read_bytes())
        write_weights(folder / REFINER, self.ema)
        refiner = RefinerConfig(self.options.unet, training=record)
        config = replace(self.model.config, chain=f"ccsr:{self._usual}", refiner=refiner)
        write_config(folder / CONFIG, config)
