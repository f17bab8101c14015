"""Runs that go on where another ended, and those that must not."""

import csv
import io
import re
import zipfile
from dataclasses import replace

import pytest
import torch

pytest.importorskip("sb3_contrib")
from skipdiff_agents.evaluate import Evaluator
from skipdiff_agents.pairs import UNSEEN, all_pairs
from skipdiff_agents.settings import read_settings
from skipdiff_agents.train import Run
from skipdiff_agents.vec_env import SkipDiffVecEnv
from skipdiff_env import SkipDiffError
from skipdiff_env.diffusion import random_model, tiny_config
from skipdiff_env.images import mixed_quality, open_source
from skipdiff_env.locks import alone
from tests.agents.runs import run, small


def test_resuming(tmp_path, tiny_setting):
    folder = tmp_path / "run"
    first = run(small("ppo", 64, num_envs=4), tiny_setting, folder)
    assert first.train().timesteps == 64
    with pytest.raises(SkipDiffError, match="already holds a run"):
        run(small("ppo", 64, num_envs=4), tiny_setting, folder).train()
    with pytest.raises(SkipDiffError, match="with seed = 0, not 1"):
        run(small("ppo", 64, num_envs=4), tiny_setting, folder, seed=1).train(resume=True)
    again = run(small("ppo", 128, num_envs=4), tiny_setting, folder)
    assert again.train(resume=True).timesteps == 128
    assert again.progress.best_reward >= first.progress.best_reward
    assert again.progress.seconds > first.progress.seconds
    steps = [int(r["timesteps"]) for r in csv.DictReader((folder / "evaluations.csv").open())]
    assert steps == sorted(set(steps)) and steps[-1] == 128


def test_the_papers_agent_goes_on_where_it_was(tmp_path, tiny_setting):
    """Weights, and what the optimiser remembers of each."""
    first = run(small("recurrent_ppo", 64, num_envs=4), tiny_setting, tmp_path / "run")
    first.train()
    before = torch.load(_member(tmp_path / "run" / "checkpoint.zip", "policy.optimizer.pth"))
    again = run(small("recurrent_ppo", 128, num_envs=4), tiny_setting, tmp_path / "run")
    assert again.train(resume=True).timesteps == 128
    after = torch.load(_member(tmp_path / "run" / "checkpoint.zip", "policy.optimizer.pth"))
    steps = [float(state["state"][0]["step"]) for state in (before, after)]
    updates = small("recurrent_ppo", 64)["arguments"]["n_epochs"] * 2
    assert steps == [3 * updates, 6 * updates]  # the last roll-out of each is not learned from any more


def _member(archive, name):
    with zipfile.ZipFile(archive) as opened:
        return io.BytesIO(opened.read(name))


def test_what_is_asked_for_is_refused_by_name(tmp_path, tiny_setting):
    with pytest.raises(SkipDiffError, match=r"timesteps=64 .* \(learning_starts\): give 1001 or more"):
        settings = read_settings("dqn") | {"timesteps": 64}
        run(settings, tiny_setting, tmp_path / "dqn").train()
    settings = small("recurrent_ppo", 64, num_envs=4)
    run(settings, tiny_setting, tmp_path / "run").train()
    wider = settings | {"policy": settings["policy"] | {"hidden_size": 9}}
    dear = settings | {"step_cost": 0.25}
    for other, name in (
        (wider, "settings.policy.hidden_size"),
        (dear, "settings.step_cost"),
        (settings | {"num_envs": 2}, "settings.num_envs"),
        (settings | {"arguments": settings["arguments"] | {"seed": 1}}, "settings.arguments.seed"),
    ):
        with pytest.raises(SkipDiffError, match=f"holds a run with {re.escape(name)} = .*, not "):
            run(other, tiny_setting, tmp_path / "run").train(resume=True)
    with pytest.raises(SkipDiffError, match="holds a run with skip_rule = 'reset', not 'hold'"):
        run(settings, replace(tiny_setting, skip_rule="hold"), tmp_path / "run").train(resume=True)


def test_a_second_run_into_one_folder_is_refused(tmp_path, tiny_setting):
    settings = small("ppo", 64, num_envs=4)
    with alone(tmp_path / "run"):
        for resume in (False, True):
            with pytest.raises(SkipDiffError, match="another run is writing there"):
                run(settings, tiny_setting, tmp_path / "run").train(resume=resume)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["dqn", "qrdqn"])
def test_after_resuming_nothing_is_learned_from_an_almost_empty_buffer(
    tmp_path, tiny_setting, name, monkeypatch
):
    """The replay buffer is not saved: it is filled again first."""
    run(small(name, 64, num_envs=4), tiny_setting, tmp_path / "run").train()
    from stable_baselines3.common.buffers import DictReplayBuffer

    sizes, sample = [], DictReplayBuffer.sample

    def watched(self, batch_size, env=None):
        sizes.append(self.size() * self.n_envs)
        return sample(self, batch_size, env)

    monkeypatch.setattr(DictReplayBuffer, "sample", watched)
    again = run(small(name, 128, num_envs=4), tiny_setting, tmp_path / "run")
    assert again.train(resume=True).timesteps == 128
    starts = again.settings["arguments"]["learning_starts"]
    assert sizes and starts <= min(sizes) < max(sizes) <= 64


def test_a_resumed_run_draws_other_episodes_than_at_its_start(tmp_path, tiny_setting, monkeypatch):
    """Else each of many short runs would learn from the same few."""
    drawn, before = [], SkipDiffVecEnv.reset

    def reset(self):
        result = before(self)
        drawn.append([(info["image"], info["noise_seed"]) for info in self.reset_infos])
        return result

    monkeypatch.setattr(SkipDiffVecEnv, "reset", reset)
    settings = small("ppo", 64, num_envs=4)
    run(settings, tiny_setting, tmp_path / "run").train()
    first = drawn[:3]
    drawn.clear()
    run(settings | {"timesteps": 128}, tiny_setting, tmp_path / "run").train(resume=True)
    assert len(first) == len(drawn[:3]) == 3 and drawn[:3] != first


def test_a_run_is_resumed_with_its_own_episodes_alone(tmp_path, tiny_setting):
    """As many images of the same names and sizes are not enough."""

    def begun(setting=tiny_setting, held_out=None, **changes):
        evaluator = Evaluator(held_out or setting, all_pairs(3, 2, UNSEEN))
        own = {"pairs": all_pairs(3, 3), "evaluator": evaluator, "device": "cpu"} | changes
        return Run(small("ppo", 64, num_envs=4), setting, folder=tmp_path / "run", **own)

    begun().train()
    before = (tmp_path / "run" / "checkpoint.zip").read_bytes()
    pictures = [tiny_setting.source[i].copy() for i in range(3)]
    pictures[1][16, 16] ^= 1
    other = replace(tiny_setting, source=open_source(pictures))
    assert [other.source.name(i) for i in range(3)] == [tiny_setting.source.name(i) for i in range(3)]
    mixed = replace(tiny_setting, source=mixed_quality(tiny_setting.source))
    bfloat16 = random_model(tiny_config())
    bfloat16.dtype = torch.bfloat16
    for other_run, name in [
        (begun(other, held_out=tiny_setting), "training"), (begun(held_out=other), "held_out"),
        (begun(mixed, held_out=tiny_setting), "training"), (begun(held_out=mixed), "held_out"),
        (begun(pairs=all_pairs(3, 3, 1)), "training"),
        (begun(evaluator=Evaluator(tiny_setting, all_pairs(3, 2, 7))), "held_out"),
        (begun(replace(tiny_setting, image_size=16)), "image_size"),
        (begun(replace(tiny_setting, model=bfloat16)), "precision"),
    ]:  # fmt: skip
        with pytest.raises(SkipDiffError, match=f"holds a run with {name} = "):
            other_run.train(resume=True)
    assert (tmp_path / "run" / "checkpoint.zip").read_bytes() == before
    assert begun().train(resume=True).timesteps == 64
