"""Network, moving average and optimiser of one run, and what one training step does with them.

Everything random in step n follows from the recipe's seed and n alone: which crops, how they are varied,
which noise, dropout. So a resumed run needs no random state to be the same as an uninterrupted one, and
processes that share a batch all draw the whole of it and take their rows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import SkipDiffError
from ..model import FrozenModel
from ..schedule import NoiseSchedule
from ..unet import UNet
from .augment import change_colour, draw_colour
from .data import ImageBank
from .degradations import draw_degradation
from .distributed import World
from .loss import diffusion_loss, draw_levels, make_pairs
from .recipe import Recipe
from .stream import StreamedBank


@dataclass(frozen=True)
class Batch:
    """What one step trains on: this process's rows, on the training device."""

    target: Tensor
    """x_0 of the chain, (B, 3, H, W)."""
    condition: Tensor
    """c, (B, 3, H, W)."""
    level: Tensor
    """√ᾱ, (B,)."""
    noise: Tensor
    """ε, (B, 3, H, W)."""


def step_seed(seed: int, step: int, stream: str) -> int:
    """Seed of one stream of random numbers in one step, 0 … 2**63 - 1."""
    digest = hashlib.blake2b(f"{seed}/{step}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class BatchMaker:
    """Makes the batch of any step.

    Args:
        recipe: what to make.
        bank: the training images, wherever they are.
        device: where batches are needed.
        world: which rows this process takes.
    """

    def __init__(
        self, recipe: Recipe, bank: ImageBank | StreamedBank, device: torch.device, world: World
    ) -> None:
        self.recipe, self.bank, self.device = recipe, bank, device
        self.rows = world.rows(recipe.batch)
        self.schedule = NoiseSchedule.from_config(recipe.model.schedule)

    @torch.no_grad()
    def __call__(self, step: int) -> Batch:
        """The batch of step ``step`` (0 is the first)."""
        recipe, data, rows = self.recipe, self.recipe.data, self.rows
        draws = torch.Generator().manual_seed(step_seed(recipe.seed, step, "batch"))
        hr = self.bank.crops(data.crop, recipe.batch, draws, rows, data.orientations, data.zoom)
        if hr.device != self.device:
            hr = (hr.pin_memory() if self.device.type == "cuda" else hr).to(self.device, non_blocking=True)
        if data.colour:
            hr = change_colour(hr, draw_colour(recipe.batch, data.colour, draws)[rows])
        level = draw_levels(self.schedule, recipe.batch, draws)[rows].to(self.device, non_blocking=True)
        noises = torch.Generator(self.device).manual_seed(step_seed(recipe.seed, step, "noise"))
        spoil = None
        if recipe.degradation is not None:
            faults = draw_degradation(recipe.degradation, recipe.batch, draws).rows(rows)

            def spoil(lr: Tensor) -> Tensor:
                return faults.apply(lr, self._normal(lr.shape[-2:], noises))

        target, condition = make_pairs(hr, recipe.model, spoil)
        return Batch(target, condition, level, self._normal(hr.shape[-2:], noises))

    def _normal(self, sides: torch.Size, generator: torch.Generator) -> Tensor:
        """This process's rows of a batch of standard normal numbers."""
        shape = (self.recipe.batch, 3, *sides)
        return torch.randn(shape, generator=generator, device=self.device)[self.rows]


class Trainer:
    """The state of training and its one step.

    Attributes:
        step: steps done.
        network: (B, 6, H, W), (B,) → (B, 3, H, W), what the optimiser changes.
        ema: the moving average of its weights, which is what people get.
        dtype: the autocast type; float32 is none.
    """

    def __init__(self, recipe: Recipe, device: torch.device, world: World | None = None) -> None:
        world = world or World()
        self.recipe, self.device, self.step = recipe, device, 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            network, ema = UNet(recipe.model.unet), UNet(recipe.model.unet)
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = ema.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema.eval().requires_grad_(False)
        self.restart_ema()
        options = recipe.optimiser
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            options.lr,
            options.betas,
            weight_decay=options.weight_decay,
            fused=True,
        )
        on_cuda = device.type == "cuda"
        half = on_cuda if recipe.precision == "auto" else recipe.precision == "bfloat16"
        self.dtype = torch.bfloat16 if half else torch.float32
        forward: nn.Module = self.network
        if world.size > 1:
            ids = [device.index] if on_cuda else None
            forward = nn.parallel.DistributedDataParallel(forward, ids, gradient_as_bucket_view=True)
        if on_cuda and recipe.compile:
            forward = torch.compile(forward, dynamic=False)  # type: ignore[assignment]
        self._forward = forward
        self._dropout_seed = f"dropout {world.rank}"

    def restart_ema(self) -> None:
        """Make the moving average equal to the network, after its weights were replaced."""
        self.ema.load_state_dict(self.network.state_dict())

    def learning_rate(self, step: int, cooling: float = 1.0) -> float:
        """Rate of a step: linear warm-up, then constant, times what a cool-down branch leaves of it."""
        options = self.recipe.optimiser
        return options.lr * min(1.0, (step + 1) / max(options.warmup, 1)) * cooling

    def update(self, batch: Batch, lr: float) -> tuple[Tensor, Tensor]:
        """One optimiser step. Returns this process's loss and the gradient's norm, scalars on the device."""
        recipe = self.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        if recipe.model.unet.dropout:
            torch.manual_seed(step_seed(recipe.seed, self.step, self._dropout_seed))
        with torch.autocast(self.device.type, self.dtype, self.dtype != torch.float32):
            loss = diffusion_loss(
                self._forward, recipe.model, batch.target, batch.condition, batch.level, batch.noise,
                recipe.loss.norm, recipe.loss.min_snr,
            )  # fmt: skip
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), recipe.optimiser.clip)
        self.optimiser.step()
        self.step += 1
        self._average()
        return loss.detach(), norm.detach()

    @torch.no_grad()
    def _average(self) -> None:
        # Early on the average forgets faster, so that it does not remember the random start.
        decay = min(self.recipe.optimiser.ema, (self.step + 1) / (self.step + 10))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.network.parameters()), 1 - decay)

    def frozen(self) -> FrozenModel:
        """The moving average as a model that can sample. It goes on changing as training goes on."""
        return FrozenModel(self.ema, self.recipe.model, self.device, self.dtype, self.recipe.name)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers that :meth:`load_state_dict` continues from, bit for bit."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` gave.

        Raises:
            SkipDiffError: if it belongs to another architecture.
        """
        try:
            self.network.load_state_dict(state["network"])
            self.ema.load_state_dict(state["ema"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError) as error:
            first = str(error).strip().splitlines()[-1].strip()
            raise SkipDiffError(f"the checkpoint is of another architecture: {first}") from None
        self.step = state["step"]
