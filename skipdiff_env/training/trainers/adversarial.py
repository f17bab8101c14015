"""Training against a discriminator, for any kind of generator."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ...diffusion.restorer import Restorer
from ..blocks import AdversarialRecipe
from ..distributed import World
from ..recipe import Recipe
from .base import Batch, Trainer
from .critics import CollapseWatch, critic_hinge, generator_hinge
from .optimiser import build_optimiser

if TYPE_CHECKING:
    from .validation import Validation


class Attempt(NamedTuple):
    """A generator's output for a batch, with gradients."""

    fake: Tensor
    """Images, (B, 3, H, W) in about [-1, 1]."""
    real: Tensor
    """The true images."""
    losses: dict[str, Tensor]
    """The weighted terms of the generator's loss, except the adversarial one, by name."""


class AdversarialTrainer(Trainer):
    """Trains a network against a discriminator with hinge losses; each step updates the network first.

    The reported loss is the sum of the generator's other terms: the adversarial term depends on the
    discriminator and says little by itself.

    Attributes:
        critic: the discriminator.
    """

    is_diffusion = False

    def __init__(
        self,
        recipe: Recipe,
        device: torch.device,
        world: World | None = None,
        restorer: Restorer | None = None,
    ) -> None:
        super().__init__(recipe, device, world, restorer)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            critic = self.build_critic()
        self.critic = critic.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.critic_optimiser = build_optimiser(self.critic, recipe.optimiser)
        self._judge = self._shared(self.critic)
        self._watch = CollapseWatch()

    @property
    @abstractmethod
    def adversarial(self) -> AdversarialRecipe:
        """Settings of the discriminator, and its weight in the generator's loss."""

    @abstractmethod
    def build_critic(self) -> nn.Module:
        """Build a fresh discriminator: images (B, 3, H, W) → answers (B, …), high for real ones."""

    @abstractmethod
    def attempt(self, batch: Batch) -> Attempt:
        """Return the generator's images for a batch, and the terms of its loss except the adversarial one."""

    def update(self, batch: Batch, lr: float) -> tuple[Tensor, Tensor]:
        """Take one step of the generator and one of the discriminator, see :meth:`Trainer.update`."""
        self._seed_dropout()
        with self._autocast():
            fake, real, losses = self.attempt(batch)
            loss = torch.stack(list(losses.values())).sum()
            against = generator_hinge(self.critic(fake)) if self.adversarial.weight else loss.new_zeros(())
        total = loss + self.adversarial.weight * against
        norm = self._descend(total, self.network, self.optimiser, lr)
        figures = dict(losses)
        if self.adversarial.weight:
            figures |= {"adversarial": against, **self._contest(real, fake.detach(), lr)}
        self.parts = {name: value.detach() for name, value in figures.items()}
        self._advance()
        return loss.detach(), norm

    def _contest(self, real: Tensor, fake: Tensor, lr: float) -> dict[str, Tensor]:
        """Take one step of the discriminator, and return its figures."""
        with self._autocast():
            answers = self._judge(torch.cat([real, fake]))
            loss = critic_hinge(*answers.chunk(2))
        norm = self._descend(loss, self.critic, self.critic_optimiser, lr * self.adversarial.lr_share)
        return {"critic_loss": loss, "critic_norm": norm, "critic_spread": answers.std()}

    def measured(self, validation: Validation) -> dict[str, float]:
        """Return no figures: validation judges pictures only."""
        return {}

    def collapsed(self, parts: Mapping[str, float]) -> str:
        """Say how the discriminator has collapsed, see :class:`.critics.CollapseWatch`; empty: not at all."""
        return self._watch(parts) if self.adversarial.weight else ""

    def state_dict(self) -> dict[str, Any]:
        """Do the same as :meth:`Trainer.state_dict`, with the discriminator."""
        return {
            **super().state_dict(),
            "critic": self.critic.state_dict(),
            "critic_optimiser": self.critic_optimiser.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do the same as :meth:`Trainer.load_state_dict`, with the discriminator."""
        super().load_state_dict(state)
        self.critic.load_state_dict(state["critic"])
        self.critic_optimiser.load_state_dict(state["critic_optimiser"])
