"""Network, moving average and optimiser of one run, and the training step that updates them.

Everything random in step n (crops, augmentation, noise, dropout) follows from the recipe's seed and n alone.
A resumed run is therefore identical to an uninterrupted one without a stored random state, and processes that
share a batch all draw the whole batch and take their rows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...chains import CCSR, Chain
from ...chains.ccsr import T_MAX
from ...diffusion.degradations import degrade_batch, draw_seeds
from ...diffusion.folder import save_model
from ...diffusion.model import FrozenModel, check_dtype
from ...diffusion.resize import degrade
from ...diffusion.restorer import Restorer
from ...diffusion.schedule import NoiseSchedule
from ...diffusion.unet import UNet
from ...errors import SkipDiffError
from ..blocks import POOL
from ..data.augment import change_colour, draw_colour
from ..data.bank import ImageBank
from ..data.stream import StreamedBank
from ..distributed import World
from ..recipe import Recipe
from .consistency import consistency_loss
from .loss import diffusion_loss, draw_levels, make_pairs
from .optimiser import MuonAdamW, build_optimiser

if TYPE_CHECKING:
    from .validation import Validation


@dataclass(frozen=True)
class Batch:
    """The data of one step: this process's rows, on the training device."""

    target: Tensor
    """x_0 of the chain, (B, 3, H, W)."""
    condition: Tensor
    """c, (B, 3, H, W)."""
    level: Tensor
    """√ᾱ, (B,)."""
    noise: Tensor
    """ε, (B, 3, H, W)."""
    clean: Tensor
    """The shrunk images, uint8 (B, 3, h, w)."""
    lr: Tensor
    """The same after degradation."""
    number: int
    """Number of the batch; batches with the same number are identical."""


def training_dtype(recipe: Recipe, device: torch.device) -> torch.dtype:
    """Return the autocast type of a recipe on a device; float32: no autocast."""
    half = device.type == "cuda" if recipe.precision == "auto" else recipe.precision == "bfloat16"
    dtype = torch.bfloat16 if half else torch.float32
    check_dtype(dtype, device)
    return dtype


def step_seed(seed: int, step: int, stream: str) -> int:
    """Return the seed of one stream of random numbers in one step, 0 … 2**63 - 1."""
    digest = hashlib.blake2b(f"{seed}/{step}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def batch_number(recipe: Recipe, step: int) -> int:
    """Return the number of a step's batch: always a new one, unless a refiner's recipe sets ``reuse``."""
    reuse = recipe.refiner.reuse if recipe.refiner else 1
    newest = step // reuse
    if step % reuse == 0:
        return newest
    return newest - step_seed(recipe.seed, step, "again") % min(POOL, newest + 1)


class BatchMaker:
    """Makes the batch of any step.

    Args:
        recipe: the recipe.
        bank: the training images.
        device: device on which batches are needed.
        world: this process's place among those that train together.
        restore: function that LR passes through before it is enlarged, see :attr:`Trainer.restorer`.
    """

    def __init__(
        self,
        recipe: Recipe,
        bank: ImageBank | StreamedBank,
        device: torch.device,
        world: World,
        restore: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.recipe, self.bank, self.device, self.restore = recipe, bank, device, restore
        self.rows = world.rows(recipe.batch)
        self.schedule = NoiseSchedule.from_config(recipe.model.schedule)
        # CCSR's chain never evaluates between T and t_max.
        self.highest = math.ceil(T_MAX * self.schedule.steps) if recipe.consistency else self.schedule.steps

    @torch.no_grad()
    def __call__(self, step: int) -> Batch:
        """Return the batch of step ``step`` (0 is the first)."""
        recipe, data, rows = self.recipe, self.recipe.data, self.rows
        number = batch_number(recipe, step)
        draws = torch.Generator().manual_seed(step_seed(recipe.seed, number, "batch"))
        hr = self.bank.crops(data.crop, recipe.batch, draws, rows, data.orientations, data.zoom)
        if hr.device != self.device:
            hr = (hr.pin_memory() if self.device.type == "cuda" else hr).to(self.device, non_blocking=True)
        if data.colour:
            hr = change_colour(hr, draw_colour(recipe.batch, data.colour, draws)[rows])
        level = draw_levels(self.schedule, recipe.batch, draws, self.highest)[rows].to(
            self.device, non_blocking=True
        )
        noises = torch.Generator(self.device).manual_seed(step_seed(recipe.seed, number, "noise"))
        clean = lr = degrade(hr, recipe.model.scale)
        if recipe.degradation is not None:
            lr = degrade_batch(clean, recipe.degradation, draw_seeds(recipe.batch, draws)[rows])
        target, condition = make_pairs(hr, self.restore(lr) if self.restore else lr, recipe.model)
        return Batch(target, condition, level, self._normal(hr.shape[-2:], noises), clean, lr, number)

    def _normal(self, sides: torch.Size, generator: torch.Generator) -> Tensor:
        """Draw this process's rows of a batch of standard normal numbers."""
        shape = (self.recipe.batch, 3, *sides)
        return torch.randn(shape, generator=generator, device=self.device)[self.rows]


class Trainer:
    """The state of a training run and its training step; this class trains a diffusion model.

    Attributes:
        config: configuration of the model that is made.
        restorer: restorer of the model that is made, through which LR passes in training too, or None.
        step: number of steps done.
        network: the network in training, (B, 6, H, W), (B,) → (B, 3, H, W).
        ema: the network with the moving average of the weights, which is exported.
        dtype: autocast type; float32: no autocast.
        parts: figures of the last step besides loss and gradient norm, for the log.
    """

    is_diffusion = True
    """Whether validation measures Eq. 7 and runs the full chain."""
    learnt_from: FrozenModel | None = None
    """The frozen model that it learns from, if any."""

    def __init__(
        self,
        recipe: Recipe,
        device: torch.device,
        world: World | None = None,
        restorer: Restorer | None = None,
    ) -> None:
        self.recipe, self.device, self.step, self.restorer = recipe, device, 0, restorer
        self.config = replace(recipe.model, restorer=restorer.config if restorer else None)
        self._world = world or World()
        self.parts: dict[str, Tensor] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            network, ema = self.build(), self.build()
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = ema.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema.eval().requires_grad_(False)
        self.restart_ema()
        self.optimiser = build_optimiser(self.network, recipe.optimiser, self._world)
        self.dtype = training_dtype(recipe, device)
        self._forward = self._shared(self.network)
        self._dropout_seed = f"dropout {self._world.rank}"

    def build(self) -> nn.Module:
        """Build a fresh network, with weights drawn from torch's global generator."""
        return UNet(self.recipe.model.unet)

    def _shared(self, network: nn.Module) -> nn.Module:
        """Wrap a module so that processes share its gradients; compile it on CUDA if the recipe says so."""
        on_cuda = self.device.type == "cuda"
        if self._world.size > 1:
            ids = [self.device.index] if on_cuda else None
            network = nn.parallel.DistributedDataParallel(network, ids, gradient_as_bucket_view=True)
        if on_cuda and self.recipe.compile:
            network = torch.compile(network, dynamic=False)  # type: ignore[assignment]
        return network

    def normal(self, like: Tensor, stream: str) -> Tensor:
        """Draw this process's rows of standard normal noise for this step, in the shape of ``like``."""
        source = torch.Generator(self.device).manual_seed(step_seed(self.recipe.seed, self.step, stream))
        shape = (self.recipe.batch, *like.shape[1:])
        drawn = torch.randn(shape, generator=source, device=self.device)
        return drawn[self._world.rows(self.recipe.batch)]

    def restart_ema(self) -> None:
        """Make the moving average equal to the network, after its weights were replaced."""
        self.ema.load_state_dict(self.network.state_dict())

    def learning_rate(self, step: int, cooling: float = 1.0) -> float:
        """Return the learning rate of a step: linear warm-up, then constant, times a branch's ``cooling``."""
        options = self.recipe.optimiser
        return options.lr * min(1.0, (step + 1) / max(options.warmup, 1)) * cooling

    def update(self, batch: Batch, lr: float) -> tuple[Tensor, Tensor]:
        """Take an optimiser step; return this process's loss and the gradient norm, scalars on the device."""
        self._seed_dropout()
        with self._autocast():
            loss = self._loss(batch)
        norm = self._descend(loss, self.network, self.optimiser, lr)
        self._advance()
        return loss.detach(), norm

    def _loss(self, batch: Batch) -> Tensor:
        recipe = self.recipe
        network, config, target, condition = self._forward, recipe.model, batch.target, batch.condition
        if recipe.consistency and self.step % recipe.consistency.every == recipe.consistency.every - 1:
            again = self.normal(target, "noise again")
            loss = consistency_loss(network, config, target, condition, batch.noise, again)
            self.parts = {"consistency": loss.detach()}
            return loss
        loss = diffusion_loss(
            network, config, target, condition, batch.level, batch.noise, recipe.loss.norm,
            recipe.loss.min_snr,
        )  # fmt: skip
        self.parts = {"denoising": loss.detach()} if recipe.consistency else {}
        return loss

    def _seed_dropout(self) -> None:
        if self.recipe.model.unet.dropout:
            torch.manual_seed(step_seed(self.recipe.seed, self.step, self._dropout_seed))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, self.dtype != torch.float32)

    def _descend(
        self, loss: Tensor, network: nn.Module, optimiser: torch.optim.Optimizer | MuonAdamW, lr: float
    ) -> Tensor:
        """Take one step of an optimiser; return the gradient norm before clipping."""
        for group in optimiser.param_groups:
            group["lr"] = lr
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), self.recipe.optimiser.clip)
        optimiser.step()
        return norm.detach()

    def _advance(self) -> None:
        self.step += 1
        self._average()

    def collapsed(self, parts: Mapping[str, float]) -> str:
        """Say what has gone irrecoverably wrong, judged by the figures of a step; empty if nothing has."""
        return ""

    def measured(self, validation: Validation) -> dict[str, float]:
        """Return those figures that need no samples, of :meth:`frozen` on validation images."""
        return {"val_loss": validation.loss(self.frozen())}

    def chains(self) -> dict[str, Chain]:
        """Return further chains that validation runs on :meth:`frozen`, by name."""
        return {f"CCSR {steps}": CCSR(steps) for steps in (1, 2)} if self.recipe.consistency else {}

    def export(self, folder: Path, record: dict[str, Any]) -> None:
        """Write the moving average as a model folder, with the record of its training."""
        save_model(folder, self.ema, replace(self.config, training=record), restorer=self.restorer)

    @torch.no_grad()
    def _average(self) -> None:
        # The average forgets faster at first, so that it does not remember the random start.
        decay = min(self.recipe.optimiser.ema, (self.step + 1) / (self.step + 10))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.network.parameters()), 1 - decay)

    def frozen(self) -> FrozenModel:
        """Return the moving average as a model that can sample; it keeps changing during training."""
        return FrozenModel(
            self.ema, self.config, self.device, self.dtype, self.recipe.name, restorer=self.restorer
        )

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain numbers from which :meth:`load_state_dict` continues, bit for bit."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            **({"restorer": self.restorer.hash} if self.restorer else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that :meth:`state_dict` returned.

        Raises:
            SkipDiffError: if it belongs to another architecture, or was trained behind another restorer.
        """
        if state.get("restorer") != (self.restorer and self.restorer.hash):
            raise SkipDiffError(
                "the checkpoint was trained behind another restorer: give the same restorer_of"
            )
        try:
            self.network.load_state_dict(state["network"])
            self.ema.load_state_dict(state["ema"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError) as error:
            first = str(error).strip().splitlines()[-1].strip()
            raise SkipDiffError(f"the checkpoint belongs to another recipe: {first}") from None
        self.step = state["step"]
