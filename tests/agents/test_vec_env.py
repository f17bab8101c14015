"""Which environments Stable-Baselines3 may learn on as one batch."""

import pytest

pytest.importorskip("stable_baselines3")
from skipdiff_agents.vec_env import SkipDiffVecEnv
from skipdiff_env import SkipDiffError, SkipDiffusionCallVectorEnv, SkipDiffusionVectorEnv


def test_environments_whose_episodes_end_one_by_one_are_refused(tiny_setting):
    arguments = {"num_envs": 2, "model": tiny_setting.model, "images": tiny_setting.source, "metric": "psnr"}
    arguments |= {"autoreset_mode": "Disabled", "image_size": 16, "coarse_steps": 2}
    with pytest.raises(SkipDiffError, match="leave out max_episode_steps"):
        SkipDiffVecEnv(SkipDiffusionVectorEnv(**arguments, max_episode_steps=3), [(0, 0)])
    del arguments["coarse_steps"]
    with pytest.raises(SkipDiffError, match="end one by one"):
        SkipDiffVecEnv(SkipDiffusionCallVectorEnv(**arguments), [(0, 0)])
