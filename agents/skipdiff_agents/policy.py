"""The skip proposal network as policies of Stable-Baselines3.

The recurrent policies of sb3-contrib have only LSTMs. :class:`SPNPolicy` replaces the LSTM by a GRU that
takes and returns (h, c) and leaves c unchanged, and passes the critic's gradient through the shared memory,
as in the paper. Agents without memory use :class:`ClockExtractor`: the same convolutions, and the number of
decisions so far from the dictionary observation.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.policies.network import FEATURES, Clock, Norm, state_encoder

from .sequence import GRUSequence, Seen, distinct


class GRUWithCell(nn.GRU):
    """A GRU with the interface of an LSTM; the second state is returned unchanged."""

    def forward(  # type: ignore[override]
        self, input: Tensor, hx: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Map (L, B, features), (h, c) to (L, B, hidden), (h', c)."""
        out, hidden = super().forward(input, hx[0].contiguous())
        return out, (hidden, hx[1])


def encode(encoder: nn.Sequential, latents: Tensor) -> Tensor:
    """Apply the convolutions: latents (B, 3, n, n) → (B, 1536).

    On the CPU, equal latents in a batch are encoded only once, except with batch norm, whose statistics must
    count each of them.
    """
    once = latents.device.type == "cpu" and not any(isinstance(m, nn.BatchNorm2d) for m in encoder)
    if not once:
        return encoder(latents)
    chosen, numbers = distinct(latents)
    return encoder(chosen).index_select(0, numbers)


def latent_side(space: spaces.Space[Any] | None, advice: str) -> int:
    """Return the side n in pixels of the latents of a space (3, n, n).

    Raises:
        SkipDiffError: for any other space; the message ends in ``advice``.
    """
    if not (isinstance(space, spaces.Box) and len(space.shape) == 3 and space.shape[0] == 3):
        raise SkipDiffError(f"the observations are {space}, not latents (3, n, n): {advice}")
    height, width = space.shape[1:]
    if height != width:
        raise SkipDiffError(
            f"the latents are {height}x{width}, not square: give the environment an observation_size"
        )
    return height


class SPNExtractor(BaseFeaturesExtractor):
    """The convolutions of the network: latents (B, 3, n, n) → (B, 1536).

    Args:
        observation_space: the space of the environment with ``observation="latent"``; n is 8 times a power
            of two.
        norm: see :class:`skipdiff_env.policies.network.SPNConfig`.

    Raises:
        SkipDiffError: for another space.
    """

    def __init__(self, observation_space: spaces.Box, norm: Norm = "batch") -> None:
        super().__init__(observation_space, FEATURES)
        side = latent_side(observation_space, 'make the environment with observation="latent"')
        self.encoder = state_encoder(side, norm)

    def forward(self, observations: Tensor) -> Tensor:
        """Map latents to features."""
        return encode(self.encoder, observations)


class ClockExtractor(BaseFeaturesExtractor):
    """Convolutions of ``latent``, joined by ``step`` and ``step_cost`` in a hidden layer; ``lr`` is not read.

    Args:
        observation_space: the space of the environment with ``observation="dict"``; the side n of its
            latents (3, n, n) is 8 times a power of two.
        norm: see :class:`skipdiff_env.policies.network.SPNConfig`.
        hidden_size: width of the hidden layer.
        step_costs: the environment's range of prices (low, high); None if it has a single price.

    Raises:
        SkipDiffError: for another space, or if ``step_costs`` does not fit it.
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        norm: Norm = "group",
        hidden_size: int = 128,
        step_costs: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(observation_space, hidden_size)
        parts = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {}
        step, price = parts.get("step"), parts.get("step_cost")
        if not isinstance(step, spaces.Discrete):
            raise SkipDiffError(
                f"ClockExtractor needs observations with 'latent' and 'step', not {observation_space}: make "
                'the environment with observation="dict"'
            )
        if isinstance(price, spaces.Box) and step_costs is None:
            raise SkipDiffError(
                "the observations contain a price: give features_extractor_kwargs="
                f"{{'step_costs': ({price.low.item():.6g}, {price.high.item():.6g})}}"
            )
        if price is None and step_costs is not None:
            raise SkipDiffError(
                f"the observations contain no price: make the environment with step_cost={step_costs}, or "
                "leave out step_costs"
            )
        side = latent_side(parts.get("latent"), 'make the environment with observation="dict"')
        self.encoder = state_encoder(side, norm)
        self.clock = Clock(int(step.n), hidden_size, step_costs)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Map the dictionary (SB3 has made ``step`` one-hot) to (B, hidden)."""
        step, step_cost = observations["step"].flatten(1), observations.get("step_cost")
        return self.clock(encode(self.encoder, observations["latent"]), step, step_cost)


class SPNPolicy(RecurrentActorCriticPolicy):
    """The paper's agent for RecurrentPPO: convolutions, a GRU, and a linear actor and critic on one memory.

    Args:
        observation_space, action_space, lr_schedule: passed by the algorithm.
        memory: kind of memory, ``gru`` or ``lstm``.
        hidden_size: width of the memory.
        norm: kind of normalisation, ``batch`` (as in the paper) or ``group``.
        ortho_init, optimizer_class, optimizer_kwargs: as for all policies of Stable-Baselines3.
        use_sde: must be False; RecurrentPPO passes it.

    Raises:
        SkipDiffError: for observations other than latents (3, n, n) whose side n is 8 times a power of two.
        ValueError: for an unknown ``memory``.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        memory: str = "gru",
        hidden_size: int = 1536,
        norm: Norm = "batch",
        ortho_init: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        use_sde: bool = False,
    ) -> None:
        if memory not in ("gru", "lstm"):
            raise ValueError(f"unknown memory {memory!r}: use 'gru' or 'lstm'")
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=[],
            ortho_init=ortho_init,
            use_sde=use_sde,
            features_extractor_class=SPNExtractor,
            features_extractor_kwargs={"norm": norm},
            normalize_images=False,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            lstm_hidden_size=hidden_size,
            shared_lstm=True,
            enable_critic_lstm=False,
        )
        self.memory, self.hidden_size, self.norm = memory, hidden_size, norm
        if memory == "gru":
            self.lstm_actor = GRUWithCell(self.features_dim, hidden_size)  # type: ignore[assignment]
        rate = self.optimizer.param_groups[0]["lr"]
        # One pass over the weights instead of ten
        fused: dict[str, Any] = {"fused": True} if self.optimizer_class is torch.optim.Adam else {}
        options = {**fused, **self.optimizer_kwargs}
        self.optimizer = self.optimizer_class(self.parameters(), lr=rate, **options)  # type: ignore[call-arg]

    def tell(self, latents: Tensor, before: Tensor | None = None) -> Tensor:
        """Compute the input of the memory for latents (D, 3, n, n), appended to ``before``.

        Its shape is (D, 1536) for an LSTM. For a GRU, the input weights are already applied, and the shape is
        (D, 3 · hidden).
        """
        if before is not None and not len(latents):
            return before
        told: Any = self.features_extractor.encoder(latents)  # type: ignore[operator]
        if isinstance(self.lstm_actor, GRUWithCell):
            told = nn.functional.linear(told, self.lstm_actor.weight_ih_l0, self.lstm_actor.bias_ih_l0)
        return told if before is None else torch.cat([before, told])

    def remember(self, told: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Compute the memory after each decision of whole sequences.

        Args:
            told: the inputs from :meth:`tell`, (L, B, ·).
            state: the state that this method returned for the previous decisions; None at the start of
                episodes.

        Returns:
            The input of actor and critic, (L, B, hidden), and the state for the next decisions.
        """
        if not isinstance(self.lstm_actor, GRUWithCell):
            return self.lstm_actor(told, state)
        memory = self.lstm_actor
        hidden = told.new_zeros(told.shape[1], memory.hidden_size) if state is None else state
        out = GRUSequence.apply(told, hidden, memory.weight_hh_l0, memory.bias_hh_l0)
        return out, out[-1]

    def decide(self, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw actions for a memory (B, hidden); return them, its value (B, 1), and their log-probability."""
        distribution = self._get_action_dist_from_latent(memory)
        actions = distribution.get_actions()
        return actions, self.value_net(memory), distribution.log_prob(actions)

    def evaluate_actions(  # type: ignore[override]
        self, obs: Tensor | Seen, actions: Tensor, lstm_states: RNNStates, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Do the same as the base class, but let the critic also train the memory, as in the paper.

        For whole episodes, :class:`.sequence.Seen`, actions and results are (L · B,), and the states are not
        used, since episodes begin without one.
        """
        if isinstance(obs, Seen):
            numbers = obs.numbers.flatten()
            if self.norm == "batch":  # its statistics must count a latent as often as it was seen
                told = self.tell(obs.latents.index_select(0, numbers))
            else:
                told = self.tell(obs.latents).index_select(0, numbers)
            memory = self.remember(told.unflatten(0, obs.numbers.shape))[0].flatten(0, 1)
        else:
            features: Any = self.extract_features(obs)
            states: Any = lstm_states.pi
            memory, _ = self._process_sequence(features, states, episode_starts, self.lstm_actor)
        distribution = self._get_action_dist_from_latent(memory)
        return self.value_net(memory), distribution.log_prob(actions), distribution.entropy()

    def _get_constructor_parameters(self) -> dict[str, Any]:
        parent = super()._get_constructor_parameters()
        kept = ("observation_space", "action_space", "lr_schedule", "ortho_init", "optimizer_class")
        own = {name: getattr(self, name) for name in ("memory", "hidden_size", "norm", "optimizer_kwargs")}
        return {name: parent[name] for name in kept} | own
