"""AddSR's distillation: a student of four levels from a frozen diffusion model with many.

Half of the steps train the student's first evaluation. The other half run the student's own chain, without
gradients, up to one of its evaluations s = 2 … 4, and train that evaluation. The teacher, conditioned on
**HR**, is given the student's x̂0, noised to a random level. The target is the teacher's x̂0, minus the
change that the teacher makes to HR itself. Distances are between pixels in [0, 1], as in AddSR's code,
so that the adversarial term has the same relative weight as there.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ...chains import AddSR, Chain
from ...chains.addsr import ADDSR_STEPS
from ...diffusion.model import FrozenModel, chain_image, chain_target, diffuse, image_from_output
from ...diffusion.protocol import as_model
from ...diffusion.schedule import NoiseSchedule
from ..blocks import AddSRRecipe, AdversarialRecipe
from ..distributed import World
from ..recipe import Recipe
from .adversarial import AdversarialTrainer, Attempt
from .base import Batch, step_seed
from .critics import FeatureCritic


def step_weight(step: int) -> float:
    """Return the time-step-adaptive weight 0.5 · 2.1^(s - 1), s = 1 … 4: 0.5, 1.05, 2.205, 4.6305.

    The later the step, the more faithful it has to be, and the less it may invent. The first evaluation may
    be the only one, and hence the last, so its weight is 4.6305 too, as in AddSR's code.
    """
    return 0.5 * 2.1 ** ((ADDSR_STEPS if step == 1 else step) - 1)


def mean_weight() -> float:
    """Return the mean of :func:`step_weight` in training, where half of the batches train the first step.

    A constant weight of this size does not change the balance with the adversarial term.
    """
    later = [step_weight(step) for step in range(2, ADDSR_STEPS + 1)]
    return (step_weight(1) + sum(later) / len(later)) / 2


def distillation_loss(x0: Tensor, wanted: Tensor, level: Tensor, weight: float) -> Tensor:
    """Return the weighted squared distance of the student's x̂0 from the teacher's, a scalar.

    Each image is weighted by √ᾱ of the teacher's level, as in AddSR's code: the SNR would be unbounded where
    there is little noise, and where there is much, the teacher can only guess.

    Args:
        x0, wanted: x̂0 of student and teacher in image space, (B, 3, H, W) in about [-1, 1].
        level: √ᾱ of the teacher's level, (B,).
        weight: weight of the student's step, see :func:`step_weight`.
    """
    distance = ((x0 - wanted) / 2).square().mean(dim=(1, 2, 3))
    return weight * (level * distance).mean()


class Student:
    """The network in training, as a model that chains can drive, see :func:`.as_model`.

    Args:
        network: the network in training.
        trainer: its trainer, whose configuration says what the network predicts.
    """

    def __init__(self, network: nn.Module, trainer: AddSRTrainer) -> None:
        self._network, self.config, self.condition = network, trainer.config, trainer.teacher.condition
        self.schedule, self.scale = NoiseSchedule.from_config(self.config.schedule), self.config.scale

    def to_latent(self, image: Tensor, condition: Tensor) -> Tensor:
        """Do the same as :meth:`.FrozenModel.to_latent`."""
        return chain_target(image, condition, self.config)

    def predict(self, latent: Tensor, condition: Tensor, noise_level: Tensor) -> Tensor:
        """Return x̂0 as :meth:`.FrozenModel.predict` does."""
        return self.predict_unclamped(latent, condition, noise_level).clamp(-1, 1)

    def predict_unclamped(self, latent: Tensor, condition: Tensor, noise_level: Tensor) -> Tensor:
        """Do the same as :meth:`predict` without the clamp, which has no gradient outside its bounds."""
        output = self._network(torch.cat([condition, latent], dim=1), noise_level)
        return image_from_output(output, latent, condition, noise_level, self.config)


class AddSRTrainer(AdversarialTrainer):
    """Trains the student, which starts as a copy of the teacher.

    Args:
        recipe: recipe with an ``addsr`` block.
        device: device to train on.
        world: this process's place among those that train together.
        teacher: the frozen model.
    """

    def __init__(self, recipe: Recipe, device: torch.device, world: World, teacher: FrozenModel) -> None:
        assert recipe.addsr is not None
        self.options: AddSRRecipe = recipe.addsr
        self.teacher = self.learnt_from = teacher
        super().__init__(recipe, device, world, teacher.restorer)
        schedule = teacher.schedule.respaced(ADDSR_STEPS)
        self.config = replace(self.config, schedule=schedule.config, chain=f"addsr:{ADDSR_STEPS}")

    @property
    def adversarial(self) -> AdversarialRecipe:
        """The recipe's settings of the discriminator."""
        return self.options.adversarial

    def build_critic(self) -> nn.Module:
        """Build a discriminator of small heads on frozen features."""
        return FeatureCritic()

    def attempt(self, batch: Batch) -> Attempt:
        """Return the student's x̂0 at one of its steps, and its distance from the teacher's."""
        hr = chain_image(batch.target, batch.condition, self.config)
        draws = torch.Generator().manual_seed(step_seed(self.recipe.seed, self.step, "steps"))
        first, later, refines = (
            int(torch.randint(n, (1,), generator=draws)) for n in (2, ADDSR_STEPS - 1, 2)
        )
        step = 1 if first else 2 + later
        # Half of the batches are without self-refinement, since the environment has none.
        chain = AddSR(ADDSR_STEPS, self.options.self_refinement if refines else 0.0)
        latent, used = self._approach(batch, chain, step)
        signal = chain.signals(self.teacher.schedule)[step - 1]
        level = torch.full((len(latent),), float(signal), device=self.device)
        fake = Student(self._forward, self).predict_unclamped(latent, used, level)
        wanted = self._taught(fake.detach(), hr, batch)
        weight = step_weight(step) if self.options.adaptive else mean_weight()
        loss = distillation_loss(fake, wanted, batch.level, weight)
        return Attempt(fake, hr, {"distillation": loss})

    @torch.no_grad()
    def _approach(self, batch: Batch, chain: AddSR, step: int) -> tuple[Tensor, Tensor]:
        """Return latent and condition of the student at ``step``, after its own earlier steps."""
        student, x_top = as_model(Student(self.network, self)), batch.noise
        return chain.approach(
            student, step - 1, batch.condition, x_top, lambda i: self.normal(x_top, f"chain {i}")
        )

    @torch.no_grad()
    def _taught(self, x0: Tensor, hr: Tensor, batch: Batch) -> Tensor:
        """Return the target: the teacher's x̂0, given HR or the student's condition, of the student's, noised.

        The teacher was trained with enlarged LR as the condition; it treats HR as such and sharpens it. The
        change that it makes to HR itself, under the same noise, is subtracted, so that HR maps to itself.
        """
        noise = self.normal(x0, "teacher")
        if self.options.teacher == "lr":
            return self._guessed(x0, batch.condition, batch.level, noise)
        images, level = torch.cat([x0, hr]), batch.level.repeat(2)
        both = self._guessed(images, hr.repeat(2, 1, 1, 1), level, noise.repeat(2, 1, 1, 1))
        of_student, of_hr = both.chunk(2)
        return hr + (of_student - of_hr)

    def _guessed(self, image: Tensor, condition: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """Return the teacher's x̂0 for images that are noised to √ᾱ = ``level``."""
        clean = self.teacher.to_latent(image, condition)
        latent = diffuse(clean, level[:, None, None, None], noise)
        return self.teacher.predict(latent, condition, level)

    def chains(self) -> dict[str, Chain]:
        """Return AddSR with one, two and four steps, by name."""
        return {f"AddSR {steps}": AddSR(steps, self.options.self_refinement) for steps in (1, 2, 4)}
