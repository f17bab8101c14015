"""Training runs: every algorithm, a known answer, what is recorded and kept."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("sb3_contrib")
from skipdiff_agents.evaluate import Evaluator
from skipdiff_agents.pairs import UNSEEN, all_pairs
from skipdiff_agents.settings import algorithms
from skipdiff_agents.train import Progress, Watch
from skipdiff_env import SkipDiffError
from skipdiff_env.diffusion.process import start_actions
from skipdiff_env.latent_cache import LatentCache
from skipdiff_env.policies.file import load_policy
from tests.agents.runs import run, small


@pytest.mark.parametrize("name", algorithms())
def test_every_algorithm_runs_to_the_end(tmp_path, tiny_setting, name):
    setting = replace(tiny_setting, cache=LatentCache())
    settings = small(name, 128, num_envs=4)
    trained = run(settings, setting, tmp_path / "run", every=64)
    progress = trained.train()
    assert progress.timesteps >= 128 and not progress.stopped_by
    with open(tmp_path / "run" / "evaluations.csv", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) >= 2 and all(float(row["regret"]) >= -1e-9 for row in rows)
    assert progress.best_reward == max(float(row["reward"]) for row in rows)
    assert list((tmp_path / "run" / "tensorboard").rglob("events.*"))
    # the kept agent is the one that the log praises, at three prices if it is told of them
    price = settings.get("step_cost", 0.0)
    told = not isinstance(price, float)
    returns = []
    for cost in np.geomspace(*price, 3) if told else [price]:
        file = tmp_path / "run" / "policy.safetensors"
        kept = trained.evaluator(load_policy(file, cost if told else 0.0))
        returns += [trained.evaluator.paid(r, cost) for r in kept]
    assert np.mean(returns) == pytest.approx(progress.best_reward)
    # no latent was computed twice: 9 training and 6 held-out episodes, x_S1 and F(F + 1)/2 latents each
    assert setting.cache.misses == len(setting.cache) <= (9 + 6) * (1 + 15)


# gamma = 0.7 makes the first decisions all but worthless: enough for `reset`, where the last skip decides.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "level", "gamma", "entropy", "timesteps"),
    [("reset", 35.0, 0.7, 0.02, 10240), ("hold", 81.0, 1.0, 0.05, 5120)],
)
def test_an_agent_finds_the_right_answer(tmp_path, setting, rule, level, gamma, entropy, timesteps):
    """At least 95 % of the optimum, which no constant action reaches.

    On noise seeds that the agent neither learned from nor was chosen by.
    """
    game = setting(level, skip_rule=rule, cache=LatentCache())
    settings = small("recurrent_ppo", timesteps, num_envs=64)
    settings["arguments"] |= {"learning_rate": 3e-3, "n_epochs": 8, "gamma": gamma, "ent_coef": entropy}
    trained = run(settings, game, tmp_path / "run", every=1280)
    trained.train()
    fresh = Evaluator(game, all_pairs(len(game.source), 2, UNSEEN + 100))
    assert not set(fresh.pairs) & {*trained.pairs, *trained.evaluator.pairs}
    optimum = np.mean([o.reward for o in fresh.optima()])
    learned = np.mean([r.reward for r in fresh(load_policy(tmp_path / "run" / "policy.safetensors"))])
    constant = [np.mean([r.reward for r in fresh(p)]) for p in ("denoise", "skip", "random")]
    assert learned >= 0.95 * optimum and max(constant) < 0.7 * optimum


def test_an_episode_ends_where_the_environment_says_so(tmp_path, tiny_setting):
    """No key of an info tells, since all are there in every step."""
    watch = Watch(run(small("ppo", 64), tiny_setting, tmp_path / "run", every=1000))
    envs = tiny_setting.envs(2)
    envs.reset(options={"image": [0, 1], "noise_seed": [0, 0]})
    for step in range(4):
        *_, done, _, infos = envs.step([0, step % 2])
        told = [{name: infos[name][row] for name in ("metric", "actions")} for row in range(2)]
        watch.locals = {"infos": told, "dones": done}
        assert watch._on_step()
        assert len(watch.ended) == (2 if step == 3 else 0)
    assert [info["actions"].tolist() for info in watch.ended] == [[0, 0, 0, 0], [0, 1, 0, 1]]


def test_too_few_decisions_are_refused(tmp_path, tiny_setting):
    with pytest.raises(SkipDiffError, match="timesteps=15 is less than one update .* give 16 or more"):
        run(small("ppo", 15, num_envs=4), tiny_setting, tmp_path / "run").train()
    assert not (tmp_path / "run").exists()


def test_how_an_agent_plays_is_told(tmp_path, tiny_setting):
    """By chance while it learns, and with the more probable action: shares of skips at every level."""
    trained = run(small("recurrent_ppo", 128, num_envs=4), tiny_setting, tmp_path / "run", every=32)
    watched = []
    trained.evaluator, evaluator = (
        (lambda policy: watched.append(evaluator(policy)) or watched[-1]),
        (trained.evaluator),
    )
    for name in ("paid", "can_find_optima", "best_rewards", "setting", "pairs", "process"):
        setattr(trained.evaluator, name, getattr(evaluator, name))
    trained.train()
    with open(tmp_path / "run" / "played.csv", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [int(row["timesteps"]) for row in rows] == [32, 64, 96, 128]
    for row, results in zip(rows, watched, strict=True):
        skips = np.mean([result.actions for result in results], axis=0)
        told = [float(row[f"held_out_skip_{level}"]) for level in (5, 4, 3, 2)]
        assert told == pytest.approx(skips.tolist())
        assert float(row["reward"])
    skipped = [8 * float(row[f"skip_{level}"]) for row in rows for level in (5, 4, 3, 2)]
    assert all(n in range(9) for n in skipped) and {*skipped} - {0, 8}  # of 8 episodes, by chance


def test_rewards_are_as_paid_if_settings_say_so(tmp_path, tiny_setting):
    relative = replace(tiny_setting)
    object.__setattr__(relative, "relative_rewards", lambda pairs: {"reward_scale": 2.0})
    settings = small("recurrent_ppo", 64, num_envs=4)
    assert run(settings, relative, tmp_path)._rewards() == {"reward_scale": 2.0}
    assert run(settings | {"relative_rewards": False}, relative, tmp_path)._rewards() == {}


def test_agents_starts_and_optima_are_compared_at_the_same_prices(tmp_path, tiny_setting):
    trained = run(small("ppo_step_cost", 64, num_envs=4, step_cost=[0.01, 1.0]), tiny_setting, tmp_path)
    trained.progress.improve(0.0, 10.0)
    best, starts = [], []
    for price in (0.01, 0.1, 1.0):
        for found in trained.evaluator.optima():
            paid = {o.actions: o.reward - price * (o.actions.count(0) + 1) for o in found.outcomes}
            best.append(max(paid.values()))
            starts.append([paid[tuple(start_actions(k, 5))] for k in range(1, 6)])
    said, start = trained.comparison(), np.mean(starts, axis=0).max()
    assert f" {start:.5f} with " in said and said.endswith(f"optimum {np.mean(best):.5f}")


def test_of_agents_with_the_same_reward_the_faster_is_kept():
    progress = Progress()
    found = [
        progress.improve(*pair) for pair in ((0.1, 17.0), (0.1, 13.0), (0.1, 14.0), (0.2, 19.0), (0.1, 10.0))
    ]
    assert found == [True, True, False, True, False]
    assert (progress.best_reward, progress.best_evaluations) == (0.2, 19.0)
    again = Progress(**json.loads(json.dumps(vars(Progress()))))  # as in a checkpoint
    assert again == Progress() and again.improve(0.0, 10.0)
