"""SkipDiff's chain (coarse skip approximation, then fine skip refinement under a policy), and CSA alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ..diffusion.noise import NoiseKey
from ..diffusion.process import SkipProcess, SkipRule
from ..diffusion.protocol import DiffusionModel
from ..diffusion.schedule import NoiseSchedule
from ..errors import SkipDiffError
from ..policies.base import FixedStart, Policy, check_steps, decided, first_memory
from ..policies.file import NetworkPolicy
from .base import Chain, Final, OnState, described, no_actions

ProcessFactory = Callable[..., SkipProcess]
"""(model, coarse_steps, fine_steps, skip_rule) → a process, such as :class:`SkipProcess` itself."""


def coarse_levels(process: SkipProcess) -> list[int]:
    """Return T and the levels that the S - 1 jumps of CSA lead to."""
    return [s * process.stride for s in range(process.coarse_steps, 0, -1)]


@dataclass(frozen=True)
class SkipDiff(Chain):
    """CSA, then FSR under a policy."""

    policy: Policy
    coarse_steps: int = 10
    """S, a divisor of the model's T."""
    fine_steps: int | None = None
    """F, at least 1; None means T/S."""
    skip_rule: SkipRule = "reset"
    process: ProcessFactory = SkipProcess
    """Function that makes the process for CSA and FSR; a process with a cache gives the same
    8-bit pictures unless the cache is ``half``."""

    name = "SkipDiff"

    def __post_init__(self) -> None:
        if self.fine_steps == 0:
            raise SkipDiffError("SkipDiff needs at least 1 fine step: use CSA for a chain without fine steps")

    def steps(self, schedule: NoiseSchedule) -> tuple[int, int, SkipRule]:
        """Return S, F and the skip rule."""
        fine = schedule.stride(self.coarse_steps) if self.fine_steps is None else self.fine_steps
        return self.coarse_steps, fine, self.skip_rule

    def __call__(
        self,
        model: DiffusionModel,
        condition: Tensor,
        keys: Sequence[NoiseKey],
        on_state: OnState | None = None,
    ) -> Final:
        """Run CSA and FSR."""
        process = self.process(model, self.coarse_steps, self.fine_steps, self.skip_rule)
        check_steps(self.policy, process.fine_steps)
        state = process.start(condition, keys, on_state)
        levels = coarse_levels(process)
        memory: Any = first_memory(self.policy, keys)
        actions = np.zeros((len(keys), process.decisions), np.int8)
        for decision in range(process.decisions):
            chosen, memory = decided(self.policy, state.latent, memory)
            state = process.step(state, chosen)
            actions[:, decision] = chosen
            levels.append(int(state.level[0]))
            if on_state:
                on_state(state)
        state = process.finish(state)
        levels.append(int(state.level[0]))
        if on_state:
            on_state(state)
        return Final(state.x0, state.evaluations, tuple(levels), actions)

    def most_evaluations(self, schedule: NoiseSchedule) -> int:
        """Return S - 1 plus the policy's fixed start, or plus F for any other policy."""
        coarse, fine, _ = self.steps(schedule)
        start = self.policy.start if isinstance(self.policy, FixedStart) else fine
        return coarse - 1 + start

    def notice(self, model: DiffusionModel) -> str:
        """Return a warning if the policy's agent was trained for something else, and an empty string
        otherwise."""
        purpose = self.policy.purpose if isinstance(self.policy, NetworkPolicy) else None
        how = purpose.differs(model, *self.steps(model.schedule)) if purpose else ""
        return how and f"the agent was {how}, and may decide badly here"

    @property
    def settings(self) -> dict[str, Any]:
        """S, the settings of the policy, and F and the skip rule if they differ from the defaults."""
        unusual: dict[str, Any] = {} if self.fine_steps is None else {"fine_steps": self.fine_steps}
        if self.skip_rule != "reset":
            unusual["skip_rule"] = self.skip_rule
        return {"coarse_steps": self.coarse_steps, **unusual, **described("policy", self.policy)}

    def __str__(self) -> str:
        settings = self.settings
        how = settings.get("policy") or f"start {settings['start']}"
        return f"{how} after {self.coarse_steps} coarse steps"


@dataclass(frozen=True)
class CSA(Chain):
    """Coarse skip approximation alone; with S = T it is the full chain, SR3's sampler."""

    steps: int
    """S, a divisor of the model's T."""
    process: ProcessFactory = SkipProcess

    name = "CSA alone"

    def __call__(
        self,
        model: DiffusionModel,
        condition: Tensor,
        keys: Sequence[NoiseKey],
        on_state: OnState | None = None,
    ) -> Final:
        """Make S jumps from T to 0."""
        process = self.process(model, self.steps, 0)
        state = process.finish(process.start(condition, keys, on_state))
        if on_state:
            on_state(state)
        levels = (*coarse_levels(process), int(state.level[0]))
        return Final(state.x0, state.evaluations, levels, no_actions(len(keys)))

    def most_evaluations(self, schedule: NoiseSchedule) -> int:
        """Return S, the number of network calls."""
        return self.steps

    @property
    def settings(self) -> dict[str, Any]:
        """S, and F = 0."""
        return {"coarse_steps": self.steps, "fine_steps": 0}
