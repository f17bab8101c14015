"""SkipDiff-v0, many episodes as one batch."""

from __future__ import annotations

from ..diffusion import SkipProcess
from .episodes import Episodes
from .options import Options
from .vector import SceneVectorEnv


class SkipDiffusionVectorEnv(SceneVectorEnv):
    """The class that ``gymnasium.make_vec("SkipDiff-v0", num_envs=n)`` makes; see :class:`.SceneVectorEnv`,
    and :class:`.SkipDiffusionEnv` for the arguments."""

    scenes = Episodes
    options = Options
    _episodes: Episodes

    @property
    def process(self) -> SkipProcess:
        """The diffusion process; its model is ``process.model``."""
        return self._episodes.process
