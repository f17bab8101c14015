"""The policy gradient without sampling: on recorded episodes the expected reward of a policy is a finite sum.

Algorithms that explore estimate the return of an action from the episodes that they happen to play. A
recording holds the result of every action and the reward of every outcome, so nothing has to be estimated.
Given the probabilities π(a | state) in all states, the expected reward is computed from the outcomes back to
the first decision by V(state) = Σ_a π(a | state) (V(state after a) − price of a), and its gradient is exact
for the episode. Only the choice of pictures is random.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from skipdiff_env.diffusion.process import DENOISE, SKIP
from skipdiff_env.envs.books import CALLS
from skipdiff_env.envs.recordings import Graph
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.policies.network import SkipProposalNetwork, SPNConfig

from .evaluate import Evaluator
from .recording import RecordedSetting

HELD = 32
"""Number of held-out episodes that are played at once."""


class Decisions:
    """Every decision of an episode: all pairs of a level and a state that can occur at it.

    Args:
        graph: graph of the episodes.

    Attributes:
        levels: level of each decision, int64 (D,).
        states: state of each decision, int64 (D,), numbered as in the graph.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        of_level = [(level, np.flatnonzero(graph.next[level, :, 0] >= 0)) for level in self._descending]
        self.levels = np.concatenate([np.full(len(states), level) for level, states in of_level])
        self.states = np.concatenate([states for _, states in of_level])

    @property
    def _descending(self) -> range:
        return range(self.graph.fine_steps, 1, -1)

    def expected_reward(
        self, logits: Tensor, rewards: Tensor, price: float = 0.0, temperature: float = 0.0
    ) -> Tensor:
        """Compute the exact expected reward of a policy.

        Args:
            logits: logits of each decision, (B, D, 2).
            rewards: reward of each outcome, (B, outcomes).
            price: price of a network evaluation, in units of reward.
            temperature: reward per nat of the policy's entropy at each decision; 0: none.

        Returns:
            The expected rewards, (B,).
        """
        log_chance = logits.log_softmax(dim=2)
        chance = log_chance.exp()
        values = rewards
        for level in reversed(self._descending):
            here = np.flatnonzero(self.levels == level)
            after = torch.from_numpy(self.graph.next[level, self.states[here]]).long().to(rewards.device)
            gains = values[:, after]  # (B, decisions of the level, 2)
            costs = price * rewards.new_tensor([CALLS[DENOISE], CALLS[SKIP]])
            earned = (chance[:, here] * (gains - costs - temperature * log_chance[:, here])).sum(dim=2)
            # Indexed by state again, for the level above; values of other levels are never looked up.
            values = rewards.new_zeros(len(rewards), len(self.graph.states))
            values = values.index_copy(1, torch.from_numpy(self.states[here]).to(rewards.device), earned)
        return values[:, self.graph.states[()]]

    def follow(self, logits: np.ndarray) -> np.ndarray:
        """Return the outcomes of taking the more probable actions: logits (B, D, 2) → outcomes (B,)."""
        chosen, rows = logits.argmax(axis=2), np.arange(len(logits))
        at = {
            (int(level), int(state)): d
            for d, (level, state) in enumerate(zip(self.levels, self.states, strict=True))
        }
        state = np.zeros(len(logits), np.int64)
        for level in self._descending:
            decision = np.array([at[level, int(s)] for s in state])
            state = self.graph.next[level, state, chosen[rows, decision]].astype(np.int64)
        return state


def train_exactly(
    training: Evaluator,
    validation: Evaluator,
    config: SPNConfig,
    epochs: int = 30,
    learning_rate: float = 5e-4,
    batch: int = 16,
    price: float = 1e-2,
    temperature: float = 0.1,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> SkipProposalNetwork:
    """Train a network with memory ``clock`` by gradient ascent on the exact expected reward.

    Args:
        training: evaluator of the training episodes, which must be recorded; they are mirrored at random.
        validation: evaluator of the validation episodes; the network of the best epoch on them is kept.
        config: configuration of the network, with memory ``clock``.
        epochs: number of times that each episode is seen.
        learning_rate: initial learning rate of AdamW, which falls linearly to 1 % of this value.
        batch: number of episodes per update.
        price: price per evaluation, in standard deviations of an episode's outcomes, so that denoising is
            not free where a later skip discards the result.
        temperature: initial reward per nat of the policy's entropy, in the same units. It falls to zero, and
            keeps decisions open until the network can distinguish pictures.
        seed: seed of weights, order and mirroring.
        device: device to train on.

    Raises:
        SkipDiffError: if the episodes are not recorded, or if the network has a memory, since its decisions
            then depend on more than the state of the episode.
    """
    setting = training.setting
    if not isinstance(setting, RecordedSetting) or not isinstance(validation.setting, RecordedSetting):
        raise SkipDiffError("the exact policy gradient learns from recorded episodes: use a RecordedSetting")
    if config.memory != "clock":
        raise SkipDiffError(
            f"the exact policy gradient cannot train a network with memory {config.memory!r}: use 'clock'"
        )
    scale = setting.relative_rewards(training.pairs)["reward_scale"]
    decisions, rng = Decisions(setting.graph), np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SkipProposalNetwork(config).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.05)
    per_epoch = math.ceil(len(training.pairs) / batch)
    total = per_epoch * epochs
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total)
    best, kept, done = -math.inf, network.state_dict(), 0
    for _ in range(epochs):
        order = [training.pairs[i] for i in rng.permutation(len(training.pairs))]
        for latents, rewards in _batches(setting, order, config, batch, device):
            mirrored = latents.flip([axis for axis in (3, 4) if rng.random() < 0.5])
            relative = (rewards - rewards.mean(dim=1, keepdim=True)) / scale
            logits = decide(network, mirrored, decisions)
            warmth = temperature * (1 - done / total)
            loss = -decisions.expected_reward(logits, relative, price, warmth).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay.step()
            done += 1
        earned = _greedy(network, validation.setting, validation.pairs, decisions, device)
        if earned > best:
            best, kept = earned, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)
    return network.cpu().eval()


def decide(network: SkipProposalNetwork, latents: Tensor, decisions: Decisions) -> Tensor:
    """Compute the logits of all decisions: latents (B, states, 3, n, n) → (B, D, 2)."""
    rows, states = latents.shape[:2]
    features = network.state_encoder(latents.flatten(0, 1)).view(rows, states, -1)
    taken = network.config.fine_steps - torch.from_numpy(decisions.levels)
    steps = torch.nn.functional.one_hot(taken, network.config.fine_steps).to(features)
    seen = features[:, torch.from_numpy(decisions.states).to(features.device)]
    hidden = network.clock(seen.flatten(0, 1), steps.repeat(rows, 1))
    return network.actor(hidden).view(rows, len(decisions.levels), 2)


def _batches(
    setting: RecordedSetting,
    pairs: Sequence[tuple[int, int]],
    config: SPNConfig,
    batch: int,
    device: torch.device | str,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield latents (B, states, 3, n, n) and rewards (B, outcomes) of episodes, float32."""
    for first in range(0, len(pairs), batch):
        chosen = pairs[first : first + batch]
        seen = np.stack([setting.latents(*pair, config.observation_size) for pair in chosen])
        paid = np.stack([setting.rewards(*pair) for pair in chosen])
        yield torch.from_numpy(seen).to(device).float(), torch.from_numpy(paid).to(device).float()


@torch.no_grad()
def _greedy(
    network: SkipProposalNetwork,
    setting: RecordedSetting,
    pairs: Sequence[tuple[int, int]],
    decisions: Decisions,
    device: torch.device | str,
) -> float:
    """Compute the mean reward of taking the more probable actions."""
    earned, training = [], network.training
    network.eval()  # validation must not change the statistics
    for latents, rewards in _batches(setting, pairs, network.config, HELD, device):
        outcomes = decisions.follow(decide(network, latents, decisions).cpu().numpy())
        earned += rewards.cpu().numpy()[np.arange(len(outcomes)), outcomes].tolist()
    network.train(training)
    return float(np.mean(earned))
