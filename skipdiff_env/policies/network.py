"""The skip proposal network (SPN), which maps a latent and a memory to two logits and a new memory.

It is the paper's agent: strided convolutions down to 8x8, a GRU, a linear actor and a linear critic. At 128
pixels and with a hidden size of 1536 it equals the authors' network, with the same state-dict keys
(``state_encoder.*``, ``gru.*``, ``actor.0.*``, ``critic.0.*``). It needs only torch; ``skipdiff_agents``
trains it, and the sampler runs it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..errors import SkipDiffError, whole_number

Norm = Literal["batch", "group"]
Memory = Literal["gru", "lstm", "clock"]

ACTIONS = 2
FINAL_SIDE, FIRST_CHANNELS, CHANNELS, GROUPS = 8, 32, 24, 8
FEATURES = CHANNELS * FINAL_SIDE**2
"""Number of features of a latent, whatever its size."""
LARGEST = 4096


@dataclass(frozen=True)
class SPNConfig:
    """The configuration of a skip proposal network.

    Raises:
        SkipDiffError: if a field is out of range; the message names it.
    """

    observation_size: int = 128
    """Side in pixels of the latents that the network sees, 8 times a power of two: 128 takes four
    convolutions, 256 five."""
    hidden_size: int = 1536
    """Width of the memory or, with memory ``clock``, of the hidden layer."""
    norm: Norm = "batch"
    """``batch`` (as in the paper) or ``group``, which behaves the same in roll-outs, updates and use."""
    memory: Memory = "gru"
    """``gru`` (as in the paper), ``lstm``, or ``clock``: no memory, but the number of the decision as an
    input."""
    fine_steps: int = 0
    """F, for a network with memory ``clock``; 0 for the others."""
    step_costs: tuple[float, float] | None = None
    """Range of the prices per evaluation that a network with memory ``clock`` observes, or None."""

    def __post_init__(self) -> None:
        convolutions(self.observation_size)
        whole_number("hidden_size", self.hidden_size, 1, LARGEST)
        whole_number("fine_steps", self.fine_steps, 0, LARGEST)
        for name, allowed in (("norm", get_args(Norm)), ("memory", get_args(Memory))):
            if getattr(self, name) not in allowed:
                raise SkipDiffError(
                    f"unknown {name} {getattr(self, name)!r}: use one of {', '.join(allowed)}"
                )
        if (self.memory == "clock") != (self.fine_steps > 1):
            raise SkipDiffError(f"fine_steps={self.fine_steps} must be 2 or more with a clock, and 0 without")
        if self.step_costs is not None:
            low, high = self.step_costs
            if self.memory != "clock" or not 0 < low < high < math.inf:
                raise SkipDiffError(
                    f"step_costs={self.step_costs} must be (low, high) with 0 < low < high, and needs a clock"
                )

    @classmethod
    def from_dict(cls, data: Any) -> SPNConfig:
        """Rebuild the configuration that :meth:`to_dict` returned.

        Raises:
            ValueError: if a field is missing, unknown or out of range; the message names it.
        """
        if not isinstance(data, dict):
            raise ValueError("the configuration is not a JSON object")
        known = {f.name for f in fields(cls)}
        if odd := sorted(known ^ set(data)):
            raise ValueError(f"field {odd[0]!r} is {'missing' if odd[0] in known else 'unknown'}")
        if data["step_costs"] is not None:
            low, high = map(float, data["step_costs"])
            data = data | {"step_costs": (low, high)}
        return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain JSON."""
        return asdict(self)

    @property
    def memory_size(self) -> int:
        """Length of a row's memory: h for a GRU, h and c for an LSTM, the count and any price for a clock."""
        clock = 1 + (self.step_costs is not None)
        return {"gru": self.hidden_size, "lstm": 2 * self.hidden_size, "clock": clock}[self.memory]


def convolutions(observation_size: int) -> int:
    """Return the number of convolutions that reduce latents of this side in pixels to 8x8; each halves the
    side.

    Raises:
        SkipDiffError: unless the side is 8 times a power of two, 16 or more.
    """
    side = whole_number("observation_size", observation_size, 2 * FINAL_SIDE, LARGEST * FINAL_SIDE)
    count = (side // FINAL_SIDE).bit_length() - 1
    if side != FINAL_SIDE * 2**count:
        raise SkipDiffError(f"observation_size={side} must be 8 times a power of two, such as 64 or 128")
    return count


def state_encoder(observation_size: int, norm: Norm) -> nn.Sequential:
    """Build the convolutions, (B, 3, n, n) → (B, 1536). Each has stride 2, which halves the side, until 8x8
    is left. The first has kernel size 9, the others 5. The first of several has 32 output channels, and all
    others have 24.

    Raises:
        SkipDiffError: for a size that :func:`convolutions` refuses.
    """
    layers: list[nn.Module] = []
    count, channels = convolutions(observation_size), 3
    for i in range(count):
        kernel, out = 5 if i else 9, CHANNELS if i or count == 1 else FIRST_CHANNELS
        layers += [
            nn.Conv2d(channels, out, kernel, stride=2, padding=kernel // 2),
            nn.BatchNorm2d(out) if norm == "batch" else nn.GroupNorm(GROUPS, out),
            nn.ReLU(),
        ]
        channels = out
    return nn.Sequential(*layers, nn.Flatten())


CLOCK_WEIGHT = math.sqrt(FEATURES / 2)
"""Weight that gives the one-hot step the same length as the features after normalisation and ReLU. Otherwise
the step would be lost among 1536 numbers that, after a skip under ``reset``, are the same at every level."""


class Clock(nn.Module):
    """A hidden layer on the features and the number of decisions taken, for agents without memory.

    Args:
        fine_steps: F.
        hidden_size: width of the layer.
        step_costs: see :class:`SPNConfig`.
    """

    step_costs: Tensor

    def __init__(
        self, fine_steps: int, hidden_size: int, step_costs: tuple[float, float] | None = None
    ) -> None:
        super().__init__()
        told = step_costs is not None
        self.layers = nn.Sequential(nn.Linear(FEATURES + fine_steps + told, hidden_size), nn.ReLU())
        if step_costs is not None:
            self.register_buffer("step_costs", torch.tensor(step_costs))

    def forward(self, features: Tensor, step: Tensor, step_cost: Tensor | None = None) -> Tensor:
        """Map features (B, 1536), the one-hot step (B, F) and, if observed, the price (B, 1) to
        (B, hidden)."""
        parts = [features, CLOCK_WEIGHT * step]
        if step_cost is not None:
            low, high = self.step_costs.log()
            # Prices differ by orders of magnitude, so the input is their logarithm; 0 counts as the lowest.
            place = (step_cost.clamp(min=1e-30).log() - low) / (high - low)
            parts.append(CLOCK_WEIGHT * place.clamp(0, 1))
        return self.layers(torch.cat(parts, dim=1))


def initial_memory(like: Tensor, batch: int, config: SPNConfig, step_cost: float = 0.0) -> Tensor:
    """Return a network's memory before an episode, (B, memory_size), with the type and device of ``like``."""
    memory = like.new_zeros(batch, config.memory_size)
    if config.step_costs is not None:
        memory[:, 1] = step_cost
    return memory


class SkipProposalNetwork(nn.Module):
    """The skip proposal network, for one decision at a time.

    Args:
        config: configuration of the network.
    """

    def __init__(self, config: SPNConfig) -> None:
        super().__init__()
        self.config = config
        self.state_encoder = state_encoder(config.observation_size, config.norm)
        if config.memory == "gru":
            self.gru = nn.GRU(FEATURES, config.hidden_size)
        elif config.memory == "lstm":
            self.lstm = nn.LSTM(FEATURES, config.hidden_size)
        else:
            self.clock = Clock(config.fine_steps, config.hidden_size, config.step_costs)
        self.actor = nn.Sequential(nn.Linear(config.hidden_size, ACTIONS))
        self.critic = nn.Sequential(nn.Linear(config.hidden_size, 1))

    def initial(self, batch: int, step_cost: float = 0.0) -> Tensor:
        """Return the memory at the start of an episode, (B, memory_size): zeros and, if observed, the
        price."""
        return initial_memory(next(self.parameters()), batch, self.config, step_cost)

    def forward(self, latent: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Map latents (B, 3, n, n), with the observation size n, and memory (B, memory_size) to logits (B, 2)
        and memory.

        The larger logit marks the better action: 0 = denoise, 1 = skip. Agents that learn values (DQN) return
        values instead of logits.
        """
        out, hidden = self.remember(latent, hidden)
        return self.actor(out), hidden

    def remember(self, latent: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the input of actor and critic, (B, hidden), and the new memory; arguments as in
        :meth:`forward`."""
        features = self.state_encoder(latent)
        if self.config.memory == "gru":
            out, after = self.gru(features[None], hidden[None])
            return out[0], after[0]
        if self.config.memory == "lstm":
            h, c = hidden[None].chunk(2, dim=2)
            out, (h, c) = self.lstm(features[None], (h.contiguous(), c.contiguous()))
            return out[0], torch.cat([h, c], dim=2)[0]
        levels = torch.arange(self.config.fine_steps, device=hidden.device, dtype=hidden.dtype)
        count, price = hidden[:, :1], hidden[:, 1:]
        told = price if self.config.step_costs else None
        step = (count == levels).to(features.dtype)
        return self.clock(features, step, told), torch.cat([count + 1, price], dim=1)
