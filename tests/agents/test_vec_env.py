"""Which environments Stable-Baselines3 may learn on as one batch."""

import gymnasium
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
    with pytest.raises(SkipDiffError, match="end at different times"):
        SkipDiffVecEnv(SkipDiffusionCallVectorEnv(**arguments), [(0, 0)])


def batch(setting, **arguments):
    return setting.envs(2, observation_size=16, **arguments)


def test_only_batches_of_arrays_are_played(tiny_setting):
    one = gymnasium.make(
        "SkipDiff-v0", model=tiny_setting.model, images=tiny_setting.source, metric="psnr", fine_steps=5
    )
    with pytest.raises(SkipDiffError, match="plays a batch, not .*make_vec"):
        SkipDiffVecEnv(one, [(0, 0)])
    with pytest.raises(SkipDiffError, match="leave out tensors=True"):
        SkipDiffVecEnv(batch(tiny_setting, tensors=True), [(0, 0)])
    with pytest.raises(SkipDiffError, match="no episode to play"):
        SkipDiffVecEnv(batch(tiny_setting), [])


def test_options_are_refused(tiny_setting):
    venv = SkipDiffVecEnv(batch(tiny_setting), [(0, 0)])
    for options in ({"image": 1}, [{}, {"image": 1}]):
        with pytest.raises(SkipDiffError, match="SkipDiffVecEnv chooses its episodes by itself"):
            venv.set_options(options)
    for options in (None, {}, [{}, {}]):
        venv.set_options(options)
    assert venv.reset().shape == (2, 3, 16, 16)
    assert venv.get_attr("num_envs", [0]) == [2]
