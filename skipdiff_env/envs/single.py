"""The base class of the environments that play one episode at a time."""

from __future__ import annotations

import operator
import os
from typing import Any, ClassVar, SupportsFloat

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded

from ..errors import SkipDiffError
from ..images import ImageSource
from .options import SceneOptions
from .registration import complete
from .rendering import RENDER_FPS, Window, draw_frame
from .scenes import Scenes

Observation = np.ndarray | dict[str, Any]

# AsyncVectorEnv forks. A child process has none of the threads that torch started before the fork, and would
# wait for them for ever as soon as it computed with more than one.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class SceneEnv(gymnasium.Env[Observation, "int | np.integer[Any]"]):
    """One row of a :class:`.Scenes` as a Gymnasium environment."""

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": RENDER_FPS}
    scenes: ClassVar[type[Scenes]]
    """The class of the episodes that a subclass plays."""

    def _open(self, options: SceneOptions, render_mode: str | None) -> None:
        """Set the environment up once the constructor has gathered its arguments."""
        self._spec: EnvSpec | None = None
        check_render_mode(render_mode, self.metadata["render_modes"])
        self.render_mode = render_mode
        self._window = Window() if render_mode == "human" else None
        self._episodes = self.scenes(1, options)
        self.observation_space = self._episodes.observation_space
        self.action_space = self._episodes.action_space

    @property
    def source(self) -> ImageSource:
        """The images: ``len(source)``, ``source.name(index)``, ``source[index]``."""
        return self._episodes.source

    @property
    def spec(self) -> EnvSpec | None:
        """The spec, whose ``max_episode_steps`` is the length of the longest episode."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = None if spec is None else complete(spec, self._episodes.longest)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; see Starting State for ``options``."""
        super().reset(seed=seed)
        self._episodes.begin([0], [self.np_random], options)
        self._show()
        return self._observation(), self._episodes.books.info(0)

    def step(
        self, action: int | np.integer[Any]
    ) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take a decision.

        Raises:
            SkipDiffError: if ``action`` is not an integer of the action space.
        """
        if self._episodes.finished(0):
            raise ResetNeeded("no episode is running: call reset() first")
        rewards, done = self._episodes.step([0], [checked_action(action, self._episodes.action_space)])
        self._show()
        return self._observation(), float(rewards[0]), bool(done[0]), False, self._episodes.books.info(0)

    def render(self) -> np.ndarray | None:
        """Draw the episode, uint8 (h, w, 3), in mode ``rgb_array``; in mode ``human``, no call is needed."""
        if self.render_mode is None:
            gymnasium.logger.warn('render() needs gymnasium.make(..., render_mode="rgb_array")')
        if self.render_mode != "rgb_array":
            return None
        return draw_frame(self._episodes, 0)

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()

    def _show(self) -> None:
        if self._window is not None:
            self._window.show(draw_frame(self._episodes, 0))

    def _observation(self) -> Observation:
        batch = self._episodes.observe()
        if isinstance(batch, dict):
            return {key: value.cpu().numpy()[0] for key, value in batch.items()}
        return batch.cpu().numpy()[0]


def checked_action(action: Any, space: spaces.Discrete) -> int:
    """Return an action as an integer; raise an error unless it is an integer of the action space."""
    try:
        chosen = operator.index(action)
    except TypeError:
        chosen = -1
    if not 0 <= chosen < space.n:
        raise SkipDiffError(f"action {action!r} is not in {space}: give an integer from 0 to {space.n - 1}")
    return chosen


def check_render_mode(render_mode: str | None, allowed: list[str]) -> None:
    """Refuse an unknown render mode, about which Gymnasium would only warn."""
    if render_mode is not None and render_mode not in allowed:
        raise SkipDiffError(
            f"unknown render_mode {render_mode!r}: use one of {', '.join([*map(repr, allowed), 'None'])}"
        )
