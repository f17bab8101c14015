"""The batched environment as a ``VecEnv`` of Stable-Baselines3.

All episodes last F - 1 steps and begin together, so they also end together: a step is one call of the
batched environment, and so is the reset after the last step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvObs, VecEnvStepReturn

from skipdiff_env.envs import SkipDiffusionCallVectorEnv
from skipdiff_env.errors import SkipDiffError

from .pairs import Pair


class BatchVecEnv(VecEnv):
    """A ``VecEnv`` whose rows belong to one object, the batch, and have no options of their own."""

    @property
    def batch(self) -> Any:
        """The object whose attributes and methods are those of every row."""
        return self

    def set_options(self, options: list[dict] | dict | None = None) -> None:
        """Refuse options, since the batch chooses its episodes by itself."""
        if options and any(options):
            raise SkipDiffError(
                f"{type(self).__name__} chooses its episodes by itself: leave out the options, {options}"
            )
        super().set_options(options)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return the batch's attribute, once for each row."""
        return [getattr(self.batch, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the whole batch."""
        setattr(self.batch, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the batch once, and return its result for each row: the row's entry of an array of
        all rows, or else the whole result."""
        result = getattr(self.batch, method_name)(*method_args, **method_kwargs)
        rows = isinstance(result, np.ndarray) and result.shape[:1] == (self.num_envs,)
        return [result[row] if rows else result for row in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: VecEnvIndices = None) -> list[bool]:
        """Return False for every row."""
        return [False for _ in self._get_indices(indices)]


class SkipDiffVecEnv(BatchVecEnv):
    """Plays given episodes repeatedly, each time in a new random order.

    Args:
        env: the batched environment ``SkipDiff-v0``, with ``autoreset_mode="Disabled"`` and whole episodes,
            or a recorded one.
        pairs: (image, noise seed) of the episodes, at least one; a small set can be cached.
        seed: seed of the order, and of prices if each episode draws its own.

    Raises:
        SkipDiffError: for anything but a batch of NumPy arrays whose episodes end together, or if there are
            no episodes; from ``set_options``, for any option.
    """

    def __init__(self, env: Any, pairs: Sequence[Pair], seed: int = 0) -> None:
        if not isinstance(env, VectorEnv):
            raise SkipDiffError(
                f"SkipDiffVecEnv plays a batch, not {env}: make SkipDiffusionVectorEnv, or call "
                "gymnasium.make_vec"
            )
        if env.metadata.get("autoreset_mode") != AutoresetMode.DISABLED:
            raise SkipDiffError('SkipDiffVecEnv needs an environment with autoreset_mode="Disabled"')
        if getattr(env.unwrapped, "tensors", False):
            raise SkipDiffError("SkipDiffVecEnv passes on NumPy arrays: leave out tensors=True")
        if len(pairs) == 0:
            raise SkipDiffError("there is no episode to play: give at least one (image, noise seed)")
        if isinstance(env.unwrapped, SkipDiffusionCallVectorEnv):
            raise SkipDiffError(
                "SkipDiffVecEnv plays only SkipDiff-v0, because the episodes of a SkipDiff-v1 batch end at "
                "different times: use Stable-Baselines3's DummyVecEnv for SkipDiff-v1"
            )
        if getattr(env.unwrapped, "max_episode_steps", None) is not None:
            raise SkipDiffError("SkipDiffVecEnv plays whole episodes: leave out max_episode_steps")
        self.env: Any = env
        self.pairs = list(pairs)
        self._seed: int | None = seed
        self._next = self._order(seed)
        self._actions = np.zeros(env.num_envs, np.int64)
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    @property
    def batch(self) -> Any:
        """The batched environment."""
        return self.env

    def _order(self, seed: int) -> Iterator[Pair]:
        random = np.random.default_rng(seed)
        while True:
            yield from (self.pairs[i] for i in random.permutation(len(self.pairs)))

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Draw the order from another seed, beginning with the next episode."""
        if seed is not None:
            self._next, self._seed = self._order(seed), seed
        return super().seed(seed)

    def reset(self) -> VecEnvObs:
        """Begin an episode in every row."""
        images, seeds = zip(*(next(self._next) for _ in range(self.num_envs)), strict=True)
        options = {"image": list(images), "noise_seed": list(seeds)}
        observations, infos = self.env.reset(seed=self._seed, options=options)
        self._seed = None
        self.reset_infos = _rows(infos, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step every row. When the episodes end, the infos are their last ones, with the last observation."""
        observations, rewards, done, _, infos = self.env.step(self._actions)
        rows: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if done.all():
            rows, last = _rows(infos, self.num_envs), observations
            for row, info in enumerate(rows):
                info["terminal_observation"] = _pick(last, row)
                info["TimeLimit.truncated"] = False
            observations = self.reset()
        return observations, rewards.astype(np.float32), done, rows

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return a picture of each row."""
        return self.env.render() or [None] * self.num_envs


def _rows(infos: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Split Gymnasium's dictionary of arrays into one dictionary per row, with the keys that the row has."""
    keys = [key for key in infos if not key.startswith("_")]
    return [{key: infos[key][row] for key in keys if infos[f"_{key}"][row]} for row in range(count)]


def _pick(batch: Any, row: int) -> Any:
    return {key: value[row] for key, value in batch.items()} if isinstance(batch, dict) else batch[row]
