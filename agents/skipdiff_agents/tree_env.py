"""SkipDiff-v1 on recorded trees, as a ``VecEnv`` of Stable-Baselines3: every step is a lookup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from torch import Tensor, nn

from skipdiff_env.policies.file import LATENT_BOUND

from .call_trees import CallTree, Shape
from .vec_env import BatchVecEnv

PLANES = 12
"""Number of picture planes: latent, x̂0, its last change and c, three colours each; they come first."""
NUMBERS = 4
"""Number of constant planes: level / T, evaluations / budget, evaluations left / budget, and 10 × the
price."""


class TreeVecEnv(BatchVecEnv):
    """Plays recorded pictures repeatedly, each time in a new random order.

    An observation has the content of SkipDiff-v1's ``observation="dict"``, as planes (16, n, n):
    :data:`PLANES` of pictures, and then :data:`NUMBERS` of one value each. Rewards are those of SkipDiff-v1.

    Args:
        shape: shape of the trees.
        trees: trees, one for each picture and noise seed.
        worth: -Σ w ln M of every chain, float64 (trees, nodes).
        num_envs: number of rows.
        price: price of a network call, or a range from which each episode draws its own, log-uniformly.
        nodes: if given, an episode is one action, the choice of one of these chains (``episode="plan"``).
        seed: seed of the order and of the prices.
    """

    def __init__(
        self,
        shape: Shape,
        trees: Sequence[CallTree],
        worth: NDArray[np.float64],
        num_envs: int = 16,
        price: float | tuple[float, float] = 0.0,
        nodes: Sequence[int] | None = None,
        seed: int = 0,
    ) -> None:
        self.shape, self.trees, self.worth, self.price = shape, trees, worth, price
        self.nodes = None if nodes is None else np.asarray(nodes)
        self._child, self._spent = shape.child, shape.spent
        self._level = np.array([path[-1] for path in shape.paths])
        self._parent = np.full(len(self._level), -1)
        for node, children in enumerate(self._child):
            self._parent[children[children >= 0]] = node
        self._random = np.random.default_rng(seed)
        self._queue: list[int] = []
        self._actions = np.zeros(num_envs, np.int64)
        side = trees[0].condition.shape[-1]
        space = spaces.Box(-LATENT_BOUND, LATENT_BOUND, (PLANES + NUMBERS, side, side), np.float32)
        count = self._child.shape[1] if self.nodes is None else len(self.nodes)
        super().__init__(num_envs, space, spaces.Discrete(count))
        self._tree, self._node = np.zeros((2, num_envs), np.int64)
        self._price = np.zeros(num_envs)

    def begin(self, rows: NDArray[np.int64], trees: Sequence[int], prices: Sequence[float]) -> None:
        """Begin an episode in each of ``rows``, with these trees and prices."""
        self._tree[rows], self._node[rows], self._price[rows] = trees, 0, prices

    def reset(self) -> VecEnvObs:
        """Begin an episode in every row."""
        self._begin_anew(np.arange(self.num_envs))
        return self.observe()

    def _begin_anew(self, rows: NDArray[np.int64]) -> None:
        while len(self._queue) < len(rows):
            self._queue += self._random.permutation(len(self.trees)).tolist()
        chosen, self._queue = self._queue[: len(rows)], self._queue[len(rows) :]
        low, high = self.price if isinstance(self.price, tuple) else (self.price, self.price)
        logs = self._random.uniform(np.log(low), np.log(high), len(rows)) if low < high else None
        self.begin(rows, chosen, np.full(len(rows), low) if logs is None else np.exp(logs))  # type: ignore[arg-type]

    def observe(self) -> NDArray[np.float32]:
        """Return the observations of all rows."""
        side = self.observation_space.shape[-1]  # type: ignore[index]
        seen = np.empty((self.num_envs, PLANES + NUMBERS, side, side), np.float32)
        for row, (number, node) in enumerate(zip(self._tree, self._node, strict=True)):
            tree, parent = self.trees[number], self._parent[node]
            x0 = tree.condition if parent < 0 else tree.x0[parent]
            before = (
                tree.condition if parent < 0 or self._parent[parent] < 0 else tree.x0[self._parent[parent]]
            )
            spent = self._spent[node] - 1
            seen[row, :3], seen[row, 3:6], seen[row, 6:9], seen[row, 9:12] = (
                tree.latents[node], x0, x0.astype(np.float32) - before, tree.condition
            )  # fmt: skip
            budget = self.shape.budget
            numbers = (self._level[node] / self.shape.top, spent / budget, 1 - spent / budget)
            seen[row, 12:] = np.array([*numbers, 10 * self._price[row]])[:, None, None]
        return seen

    def action_masks(self) -> NDArray[np.bool_]:
        """Return which actions are allowed next, (num_envs, actions)."""
        if self.nodes is not None:
            return np.ones((self.num_envs, len(self.nodes)), np.bool_)
        masks = self._child[self._node] >= 0
        masks[:, -1] = True
        return masks

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for :meth:`step_wait`."""
        self._actions = np.asarray(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Step every row. The infos of episodes that end hold the chain's ``node``."""
        rewards, done = self.play(self._actions)
        rows: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = np.flatnonzero(done)
        if len(ended):
            last = self.observe()
            for row in ended:
                rows[row] = {"node": int(self._node[row]), "TimeLimit.truncated": False}
                rows[row]["terminal_observation"] = last[row]
            self._begin_anew(ended)
        return self.observe(), rewards.astype(np.float32), done, rows

    def play(self, actions: np.ndarray) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Step every row, without resetting those that end; return the rewards, and which rows end.

        Raises:
            ValueError: for an action that is not allowed.
        """
        if not self.action_masks()[np.arange(self.num_envs), actions].all():
            raise ValueError(
                "an action leads to a level that is not lower, or exceeds the budget: see action_masks()"
            )
        if self.nodes is not None:
            self._node = self.nodes[actions]
            paid = self.worth[self._tree, self._node] - self._price * self._spent[self._node]
            return paid, np.ones(self.num_envs, np.bool_)
        before = self._parent[self._node]
        known = np.where(before < 0, 0.0, self.worth[self._tree, before])
        paid = self.worth[self._tree, self._node] - known - self._price
        after = self._child[self._node, actions]
        done = after < 0
        self._node = np.where(done, self._node, after)
        return paid, done

    def close(self) -> None:
        """Do nothing, since there is nothing to close."""


def played(
    agent: Any, shape: Shape, trees: Sequence[CallTree], worth: NDArray[np.float64], price: float,
    nodes: Sequence[int] | None = None,
) -> NDArray[np.int64]:  # fmt: skip
    """Play an agent's most probable actions; return the nodes on which its chains end, (trees,)."""
    env = TreeVecEnv(shape, trees, worth, len(trees), price, nodes)
    rows, open_ = np.arange(len(trees)), np.ones(len(trees), np.bool_)
    env.begin(rows, rows.tolist(), [price] * len(rows))
    found = np.zeros(len(trees), np.int64)
    while open_.any():
        masks = env.action_masks()
        actions, _ = agent.predict(env.observe(), action_masks=masks, deterministic=True)
        # Rows that are over remain as they are, since a call to level 0 is always allowed.
        actions = np.where(open_, actions, masks.shape[1] - 1)
        _, done = env.play(actions)
        found = np.where(open_, env._node, found)
        open_ &= ~done
    return found


class PlanesExtractor(BaseFeaturesExtractor):
    """Three convolutions of the planes, joined by the numbers: (B, 16, n, n) → (B, 128)."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 128)
        layers: list[nn.Module] = []
        for before, after in ((PLANES, 32), (32, 48), (48, 48)):
            layers += [nn.Conv2d(before, after, 5, stride=2, padding=2), nn.GroupNorm(8, after), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            seen = self.convolutions(torch.zeros(1, PLANES, *observation_space.shape[1:])).shape[1]
        self.joined = nn.Sequential(nn.Linear(seen + NUMBERS, 128), nn.ReLU())

    def forward(self, observations: Tensor) -> Tensor:
        """Map observations to features."""
        numbers = observations[:, PLANES:, 0, 0]
        return self.joined(torch.cat([self.convolutions(observations[:, :PLANES]), numbers], dim=1))
