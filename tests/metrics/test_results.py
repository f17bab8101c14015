"""A result that is not finite has no score, no reward and no worth, whoever asks."""

import gymnasium
import numpy as np
import pytest
import torch

from skipdiff_env import SkipDiffError, find_optimal_plan, find_optimum
from skipdiff_env.chains import Plan
from skipdiff_env.diffusion import SkipProcess, random_model, tiny_config
from skipdiff_env.envs.recordings import Graph, record
from skipdiff_env.images import make_pair, open_source
from skipdiff_env.metrics import Results, load_metric, or_zero

HR = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


class Spoilt:
    """A model each of whose estimates has one number that is not finite."""

    def __init__(self, value):
        self.model, self.value = random_model(tiny_config(image_size=32)), value

    def __getattr__(self, name):
        return getattr(self.model, name)

    def predict(self, latent, condition, noise_level):
        x0 = self.model.predict(latent, condition, noise_level).clone()
        x0[:, 0, 3, 5] = self.value
        return x0


@pytest.fixture(params=[np.nan, np.inf], ids=str)
def spoilt(request):
    return Spoilt(request.param)


def bright(images):
    return images.mean((1, 2, 3)) + 1.0


def test_scores_rewards_and_worths():
    x0 = torch.zeros(3, 3, 32, 32)
    x0[1, 2, 0, 0] = torch.nan
    results = Results.of(x0)
    assert results.images.dtype == np.uint8 and results.images.shape == (3, 32, 32, 3)
    assert results.finite.tolist() == [True, False, True]
    scores = results.scores(load_metric(bright), None)
    np.testing.assert_array_equal(scores, [129.0, np.nan, 129.0])
    np.testing.assert_array_equal(results.valid(np.ones((3, 2)))[1], [np.nan, np.nan])
    assert results.select(np.array([False, True, True])).finite.tolist() == [False, True]
    lower, higher = load_metric("residue"), load_metric("psnr")
    values = np.array([[2.0, 0.0, -1.0], [np.nan, np.inf, 4.0]])
    np.testing.assert_array_equal(lower.rewards(values), [[0.5, np.nan, np.nan], [np.nan, 0.0, 0.25]])
    np.testing.assert_allclose(
        lower.worth(values), [[-np.log(2), np.nan, np.nan], [np.nan, np.nan, -np.log(4)]]
    )
    np.testing.assert_allclose(
        higher.worth(values), [[np.log(2), np.nan, np.nan], [np.nan, np.nan, np.log(4)]]
    )
    assert or_zero(np.array([np.nan, np.inf, -np.inf, 0.5])).tolist() == [0, 0, 0, 0.5]


@pytest.mark.parametrize("name", ["SkipDiff-v0", "SkipDiff-v1"])
def test_the_environments_pay_nothing(spoilt, name):
    env = gymnasium.make(name, model=spoilt, images=[HR], metric=bright, disable_env_checker=True)
    env.reset(seed=0)
    over, total = False, 0.0
    while not over:
        _, reward, over, _, info = env.step(int(env.action_space.n) - 1)
        total += reward
    assert total == 0 and not info["reward_valid"]
    assert all(np.isnan(info[key]) for key in ("metric", "psnr", "ssim"))


def test_the_oracles_pay_nothing(spoilt):
    optimum = find_optimum(spoilt, HR, metric=bright, fine_steps=3)
    assert [o.reward for o in optimum.outcomes] == [0.0] * 3
    plans = find_optimal_plan(spoilt, HR, metric=bright, budget=2, levels=[50])
    assert [o.worth for o in plans.outcomes] == [0.0] * 2
    assert np.isnan([o.value for o in (*optimum.outcomes, *plans.outcomes)]).all()


def test_recordings_hold_no_score(spoilt):
    pair = make_pair(open_source([HR]), 0, scale=4)
    process = SkipProcess(spoilt, 10, 3, "reset")
    made = record(process, Graph(3, "reset"), pair, 0, (8,), ("psnr", "ssim"))
    assert made.values.shape == (3, 2) and np.isnan(made.values).all()


def test_trees_and_plans_hold_no_score(spoilt):
    call_trees = pytest.importorskip("skipdiff_agents.call_trees")
    pair = make_pair(open_source([HR]), 0, scale=4)
    shape = call_trees.Shape(100, (50.0,), 2)
    tree = call_trees.record_tree(spoilt, pair, 0, shape, ["psnr"], 8)
    plans = call_trees.judged_plans(spoilt, pair, 0, [Plan.read("100>50>0")], ["psnr"])
    scores = np.concatenate([tree.scores, plans])
    assert np.isnan(scores).all() and not call_trees.worth(scores, ["psnr"], {"psnr": 1.0}).any()


@pytest.mark.parametrize("others", [{"coarse_steps": 10}, {"fine_steps": 3}, {"skip_rule": "hold"}])
def test_a_process_and_its_steps_are_not_given_together(others):
    model = random_model(tiny_config(image_size=32))
    process = SkipProcess(model, 10, 3)
    with pytest.raises(SkipDiffError, match="process= has steps and a rule of its own: leave out"):
        find_optimum(model, HR, metric=bright, process=process, **others)
    assert len(find_optimum(model, HR, metric=bright, process=process).outcomes) == 3
