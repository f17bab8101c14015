"""SkipDiff-v1, many episodes as one batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..diffusion import CallProcess
from .call_episodes import CallEpisodes
from .options import CallOptions
from .vector import SceneVectorEnv


class SkipDiffusionCallVectorEnv(SceneVectorEnv):
    """The class that ``gymnasium.make_vec("SkipDiff-v1", num_envs=n)`` makes; see :class:`.SceneVectorEnv`,
    and :class:`.SkipDiffusionCallEnv` for the arguments."""

    scenes = CallEpisodes
    options = CallOptions
    _episodes: CallEpisodes

    @property
    def process(self) -> CallProcess:
        """The process that makes the calls; its model is ``process.model``."""
        return self._episodes.process

    @property
    def levels(self) -> Sequence[float]:
        """The levels that calls may lead to, in the order of the actions."""
        return self._episodes.levels

    def action_masks(self) -> np.ndarray:
        """Return masks of the actions that are allowed next, bool (num_envs, actions)."""
        return self._episodes.books.mask.astype(np.bool_)
