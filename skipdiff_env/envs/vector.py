"""Vector environments of Gymnasium, which run many episodes as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from ..errors import SkipDiffError, whole_number
from ..images import ImageSource
from .options import SceneOptions, one_of
from .registration import complete
from .rendering import RENDER_FPS, draw_frame
from .scenes import Scenes
from .single import check_render_mode

Batch = Any
"""An array or tensor (num_envs, ...), or a dictionary of them."""


class SceneVectorEnv(VectorEnv[Batch, Batch, Batch]):
    """``num_envs`` copies of a :class:`.SceneEnv` that share every call of the network and the metric.

    If the batch is seeded with s, copy i plays what a single environment seeded with s + i plays, up to
    float32 rounding, which depends on the size of the batch. Infos have Gymnasium's layout: in every step,
    each key of the single environment holds an array (num_envs, ...), and ``_key`` a mask of the copies for
    which it was filled.

    Args:
        num_envs: number of copies.
        autoreset_mode: ``"NextStep"`` (the default: the step after the end of an episode ignores its action,
            begins a new episode and returns reward 0), ``"SameStep"`` (the new episode begins at once; the
            last observation and info are ``infos["final_obs"]`` and ``infos["final_info"]``), or
            ``"Disabled"`` (you call ``reset(options={"reset_mask": ...})``); or a member of
            ``gymnasium.vector.AutoresetMode``.
        tensors: whether observations, rewards (float32) and flags are torch tensors on the device
            instead of NumPy arrays. Actions may always be either.
        render_mode: ``"rgb_array"`` or None.
        max_episode_steps: number of decisions after which an episode that has not ended is truncated; None
            or -1: never.
        arguments: the arguments of the single environment.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["rgb_array"],
        "render_fps": RENDER_FPS,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }
    scenes: ClassVar[type[Scenes]]
    """The class of the episodes that a subclass plays."""
    options: ClassVar[type[SceneOptions]]
    """The class of the arguments of a subclass."""

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        tensors: bool = False,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **arguments: Any,
    ) -> None:
        self.num_envs = num_envs = whole_number("num_envs", num_envs, 1)
        if max_episode_steps == -1:  # as for gymnasium.make
            max_episode_steps = None
        if max_episode_steps is not None:
            whole_number("max_episode_steps", max_episode_steps, 1)
        check_render_mode(render_mode, self.metadata["render_modes"])
        self.render_mode, self.tensors = render_mode, tensors
        if not isinstance(autoreset_mode, AutoresetMode):
            one_of("autoreset_mode", autoreset_mode, [mode.value for mode in AutoresetMode])
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self._spec: EnvSpec | None = None
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self._episodes = self.scenes(num_envs, self.options(**arguments))
        longest = self._episodes.longest
        cuts = max_episode_steps is not None and max_episode_steps < longest
        self.max_episode_steps = max_episode_steps if cuts else None
        """Number of decisions after which an episode is truncated; None: never."""
        self.single_observation_space = self._episodes.observation_space
        self.single_action_space = self._episodes.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._random: list[tuple[np.random.Generator, int] | None] = [None] * num_envs
        self._done = np.zeros(num_envs, np.bool_)

    @property
    def spec(self) -> EnvSpec | None:
        """The spec; ``max_episode_steps`` is the length of the longest episode unless a lower limit was
        given."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        longest = self.max_episode_steps or self._episodes.longest
        self._spec = None if spec is None else complete(spec, longest)

    @property
    def source(self) -> ImageSource:
        """The images: ``len(source)``, ``source.name(index)``, ``source[index]``."""
        return self._episodes.source

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Batch, dict[str, Any]]:
        """Begin new episodes.

        Args:
            seed: an integer s, which gives copy i the seed s + i, or one seed or None for each copy.
            options: ``image``, ``noise_seed`` and ``step_cost`` as for the single environment, one value for
                all copies or one for each; and ``reset_mask``, bool (num_envs,): which copies to reset
                (default: all).

        Returns:
            The observations of all copies, and the infos of those that were reset.
        """
        options = dict(options or {})
        mask = self._reset_mask(options)
        for row, row_seed in enumerate(self._seeds(seed)):
            if mask[row] and row_seed is not None:
                self._random[row] = seeding.np_random(row_seed)
        rows = np.flatnonzero(mask)
        self._begin(rows, options)
        self._done[rows] = False
        return self._numpy(self._episodes.observe()), self._infos({}, rows)

    def step(self, actions: Batch) -> tuple[Batch, Batch, Batch, Batch, dict[str, Any]]:
        """Take a decision in each copy; ``actions`` is an array, tensor or list (num_envs,)."""
        chosen = np.asarray(actions.cpu() if isinstance(actions, Tensor) else actions)
        if chosen.shape != (self.num_envs,):
            raise SkipDiffError(f"actions must have shape ({self.num_envs},), got {chosen.shape}")
        if not self._episodes.begun:
            raise ResetNeeded("no episode is running: call reset() first")
        if self.autoreset_mode == AutoresetMode.DISABLED and self._done.any():
            over = np.flatnonzero(self._done).tolist()
            raise ResetNeeded(
                f"the episodes of environments {over} are over: reset them with reset_mask first"
            )
        rewards, ended = np.zeros(self.num_envs), np.zeros(self.num_envs, np.bool_)
        cut = np.zeros_like(ended)
        again = np.flatnonzero(self._done)
        play = np.flatnonzero(~self._done)
        if len(play):
            rewards[play], ended[play] = self._episodes.step(play, chosen[play])
            if self.max_episode_steps is not None:
                cut[play] = ~ended[play] & (self._episodes.books.taken[play] >= self.max_episode_steps)
        finals: dict[int, dict[str, Any]] = {}
        self._done = ended | cut
        if self.autoreset_mode == AutoresetMode.SAME_STEP and self._done.any():
            again = np.flatnonzero(self._done)
            last = self._numpy(self._episodes.observe())
            finals = {
                row: {"final_obs": _row(last, row), "final_info": self._episodes.books.info(row)}
                for row in again.tolist()
            }
            self._done[:] = False
        if len(again):
            self._begin(again)
        infos = self._infos(finals, np.arange(self.num_envs))
        observations = self._numpy(self._episodes.observe())
        if not self.tensors:
            return observations, rewards, ended, cut, infos
        reward = torch.tensor(rewards, dtype=torch.float32, device=self._episodes.device)
        end = torch.tensor(ended, device=self._episodes.device)
        return observations, reward, end, torch.tensor(cut, device=self._episodes.device), infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Draw one picture per copy, uint8 (h, w, 3), in mode ``rgb_array``."""
        if self.render_mode is None:
            return None
        return tuple(draw_frame(self._episodes, row) for row in range(self.num_envs))

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generators of the copies."""
        return tuple(self._generator(row)[0] for row in range(self.num_envs))

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seeds of the copies."""
        return tuple(self._generator(row)[1] for row in range(self.num_envs))

    def _generator(self, row: int) -> tuple[np.random.Generator, int]:
        random = self._random[row]
        if random is None:
            random = self._random[row] = seeding.np_random()
        return random

    def _begin(self, rows: np.ndarray, options: dict[str, Any] | None = None) -> None:
        self._episodes.begin(rows, [self._generator(row)[0] for row in rows], options)

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, (int, np.integer)):
            return [int(seed) + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise SkipDiffError(
                f"give one seed, or one for each environment: environments {self.num_envs}, seeds {len(seed)}"
            )
        return [None if s is None else int(s) for s in seed]

    def _reset_mask(self, options: dict[str, Any]) -> np.ndarray:
        """Take ``reset_mask`` out of the options; all True by default."""
        mask = options.pop("reset_mask", np.ones(self.num_envs, np.bool_))
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            raise SkipDiffError(
                f"reset_mask must be a NumPy bool array of shape ({self.num_envs},), got {mask!r}"
            )
        if not mask.any():
            raise SkipDiffError("reset_mask selects no environment: set at least one element to True")
        if not (mask.all() or self._episodes.begun):
            raise ResetNeeded("reset all environments once before resetting some of them with reset_mask")
        return mask

    def _infos(self, finals: dict[int, dict[str, Any]], rows: np.ndarray) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        for row, final in finals.items():
            infos = self._add_info(infos, final, row)
        return infos | self._episodes.books.infos(rows)

    def _numpy(self, batch: Tensor | dict[str, Tensor]) -> Batch:
        if self.tensors:
            return batch
        if isinstance(batch, dict):
            return {key: value.cpu().numpy() for key, value in batch.items()}
        return batch.cpu().numpy()


def _row(batch: Batch, row: int) -> Any:
    return {key: value[row] for key, value in batch.items()} if isinstance(batch, dict) else batch[row]
