"""SkipDiff-v1: every network call a decision, paid by what it gains."""

import copy
import dataclasses
import inspect
import json
import pickle
import re
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from skipdiff_env import SkipDiffSampler
from skipdiff_env.chains import Plan
from skipdiff_env.diffusion import Call, CallProcess, NoiseKey, image_key
from skipdiff_env.diffusion.calls import ETAS, TOLD, usual_levels
from skipdiff_env.diffusion.resize import to_arrays, to_planes, to_uint8
from skipdiff_env.envs import SkipDiffusionCallEnv, rendering
from skipdiff_env.envs.call_books import CallChoices
from skipdiff_env.envs.options import CallOptions
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.metrics import load_metric

PLANS = ["100>50>0", "100>57>27>14|11>5>2>0 eta 0|1", "100>~60>0"]
KINDS = [
    {},
    {"observation": "dict"},
    {"observation": "dict", "actions": "full", "budget": 5, "step_cost": (0.001, 0.1)},
    {"observation_size": 16, "levels": [50, 20, 5]},
    {"episode": "plan", "plans": PLANS, "observation": "dict"},
]


@pytest.fixture(autouse=True)
def no_screen(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(rendering, "RENDER_FPS", 1000)


@pytest.fixture
def make_calls(tiny, photos, bright):
    """``gymnasium.make("SkipDiff-v1")`` with small things for defaults."""

    def make(**arguments):
        return gymnasium.make(
            "SkipDiff-v1", **{"model": tiny, "images": photos, "metric": bright} | arguments
        )

    return make


@pytest.fixture
def make_batch(tiny, photos, bright):
    def make(num_envs, **arguments):
        defaults = {"model": tiny, "images": photos, "metric": bright}
        return gymnasium.make_vec("SkipDiff-v1", num_envs=num_envs, **defaults | arguments)

    return make


@pytest.mark.parametrize("arguments", KINDS)
def test_gymnasiums_checker_has_nothing_to_say(make_calls, arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make_calls(**arguments).unwrapped)


@pytest.mark.parametrize("arguments", KINDS)
def test_sb3s_checker_has_only_its_image_warnings(make_calls, arguments):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checker.check_env(make_calls(**arguments).unwrapped)
    expected = ("its `dtype` is (float32)", "are not in [0, 255]", "minimal resolution for an image")
    messages = [str(w.message) for w in caught]
    assert all(any(part in message for part in expected) for message in messages), messages


def test_signature_and_manual_are_those_of_the_options():
    options = [(o.name, o.type, o.default) for o in dataclasses.fields(CallOptions)]
    signature = list(inspect.signature(SkipDiffusionCallEnv).parameters.values())
    assert [(p.name, p.annotation, p.default) for p in signature[:-1]] == options
    assert signature[-1].name == "render_mode"
    table = inspect.getdoc(SkipDiffusionCallEnv).split("## Arguments")[1].split("## Info")[0]
    rows = re.findall(r"^\| (`\w+`) \| (`.+?`) \| (.+) \|$", table, re.MULTILINE)
    python = {"`null`": "`None`", "`false`": "`False`"}
    meant = [
        (f"`{o.name}`", python.get(text := f"`{json.dumps(o.default)}`", text), o.metadata["meaning"])
        for o in dataclasses.fields(CallOptions)
    ]
    assert rows[:-1] == meant


def test_the_manual_names_every_key(make_calls):
    env = make_calls(observation="dict", step_cost=(0.1, 0.2), return_image=True)
    observation, info = env.reset(seed=0)
    manual = inspect.getdoc(SkipDiffusionCallEnv)
    for key in [*observation, *info]:
        assert f"`{key}`" in manual


def calls_of(env, info):
    made = info["calls"][: info["evaluations"]].tolist()
    return tuple(Call(told, to, eta if to else 0.0) for told, to, eta in made)


@pytest.mark.parametrize("arguments", KINDS[:4])
def test_rewards_add_up_to_the_worth_of_the_result(make_calls, tiny, photos, bright, arguments):
    """And the result is that of the plan that the calls make up, by the sampler."""
    env = make_calls(**{"return_image": True} | arguments).unwrapped
    env.action_space.seed(1)
    for seed in range(4):
        env.reset(seed=seed)
        total, ended = 0.0, False
        while not ended:
            _, reward, ended, _, info = env.step(env.action_space.sample())
            total += reward
        hr, lr = env._episodes.pairs[0].hr, env._episodes.pairs[0].lr
        plan = Plan(100, calls_of(env, info))
        assert len(plan.calls) == info["evaluations"] <= env._episodes.budget
        out = SkipDiffSampler(tiny)(lr, plan, info["noise_seed"]).images
        assert np.array_equal(out[0], info["sr_image"])
        worth = float(np.log(bright(out)[0]))  # more brightness is better
        assert total == pytest.approx(worth - info["step_cost"] * info["evaluations"], abs=1e-6)
        assert info["metric"] == pytest.approx(bright(out)[0]) and info["reward_valid"]
        assert info["psnr"] == pytest.approx(load_metric("psnr")(out, hr[None])[0])


def test_a_weighted_metric_with_low_values_for_good(make_calls, tiny):
    weights = {"residue": 1, "ssim": 0.5}
    env = make_calls(metric=weights, budget=3).unwrapped
    env.reset(seed=0)
    _, first, _, _, info = env.step(0)
    metric = load_metric(weights)
    x0 = to_arrays(to_uint8(env._episodes.state.x0))
    assert first == pytest.approx(-np.log(metric(x0, env._episodes.pairs[0].hr[None])[0]))
    assert info["metric"] == pytest.approx(np.exp(-first)) and not info["reward_valid"]
    assert info["psnr"] == -1


def test_each_plan_is_the_single_action(make_calls, tiny, bright):
    env = make_calls(episode="plan", plans=PLANS, step_cost=0.01).unwrapped
    assert env.action_space.n == 3
    for action, text in enumerate(PLANS):
        env.reset(seed=3)
        _, reward, ended, _, info = env.step(action)
        assert ended and info["evaluations"] == len(Plan.read(text).calls)
        lr = env._episodes.pairs[0].lr
        out = SkipDiffSampler(tiny)(lr, Plan.read(text), info["noise_seed"]).images
        assert reward == pytest.approx(np.log(bright(out)[0]) - 0.01 * info["evaluations"], rel=1e-4)
    assert make_calls(episode="plan", plans=PLANS, budget=3).action_space.n == 2


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
@pytest.mark.parametrize("arguments", KINDS)
def test_a_batch_is_gymnasiums_own_vector_env(make_calls, make_batch, assert_close, mode, arguments):
    """Observations, rewards, ends and infos, with rows at levels of their own."""
    ours = make_batch(3, autoreset_mode=mode, **arguments)
    theirs = SyncVectorEnv([lambda: make_calls(**arguments)] * 3, autoreset_mode=mode)
    rng = np.random.default_rng(0)
    results = [[envs.reset(seed=7)] for envs in (ours, theirs)]
    for _ in range(12):
        actions = rng.integers(0, ours.single_action_space.n, 3)
        for envs, found in zip((ours, theirs), results, strict=True):
            found.append(envs.step(actions))
            if mode == "Disabled" and found[-1][2].any():
                found.append(envs.reset(options={"reset_mask": found[-1][2]}))
    for a, b in zip(*results, strict=True):
        for one, other in zip(a, b, strict=True):
            assert_close(one, other, 1e-4)


@settings(max_examples=60, deadline=None)
@given(
    full=st.booleans(),
    budget=st.integers(1, 8),
    levels=st.lists(st.integers(1, 99), min_size=1, max_size=8, unique=True),
    data=st.data(),
)
def test_masks_are_right(full, budget, levels, data):
    """An action is allowed just where a plan could go on like that and still end within the budget."""
    levels = [*sorted(levels, reverse=True), 0]
    choices = CallChoices(levels, full, budget)
    assert len(choices) == len(levels) * (9 if full else 1)
    reached = data.draw(st.sampled_from([100, *levels[:-1]]))
    spent = data.draw(st.integers(0, budget - 1))
    mask = choices.mask(np.array([float(reached)]), np.array([spent]))[0]
    for action in range(len(choices)):
        index, eta = divmod(action, 3) if full else (action, 0)
        share, to = TOLD[index // len(levels)], levels[index % len(levels)]
        allowed = to < share * reached and (to == 0 or spent < budget - 1)
        assert mask[action] == allowed
        told, to_now, eta_now = choices.calls(
            np.array([action]), np.array([float(reached)]), np.array([spent])
        )
        assert told[0] == share * reached and eta_now[0] == (ETAS[eta] if full else 0)
        if allowed:
            assert to_now[0] == to
        else:
            lower = [level for level in levels if level < told[0]]
            assert to_now[0] == (0 if spent == budget - 1 else lower[0])
    assert mask.any()
    assert choices.mask(np.zeros(1), np.array([spent])).all()  # of an episode that is over


def test_maskable_ppo_works_as_it_comes(make_calls):
    """It asks for ``action_masks`` and, obeying them, never plays an action that means another."""
    contrib = pytest.importorskip("sb3_contrib")
    extractor = pytest.importorskip("stable_baselines3.common.torch_layers").FlattenExtractor
    env = make_calls(budget=4, observation_size=4)
    agent = contrib.MaskablePPO(
        "MlpPolicy", env, n_steps=16, batch_size=16, device="cpu", seed=0,
        policy_kwargs={"normalize_images": False, "features_extractor_class": extractor},
    )  # fmt: skip
    agent.learn(32)
    observation, info = env.reset(seed=0)
    ended = False
    while not ended:
        masks = env.unwrapped.action_masks()
        assert (masks == info["action_mask"].astype(bool)).all()
        action, _ = agent.predict(observation, action_masks=masks)
        assert masks[action]
        before = info["evaluations"]
        observation, _, ended, _, info = env.step(int(action))
        assert info["calls"][before, 1] == env.unwrapped.levels[int(action)]


def test_levels(make_calls):
    assert usual_levels(100) == [90, 80, 70, 60, 50, 40, 30, 24, 19, 15, 11, 9, 7, 5, 4, 3, 2, 1, 0]
    assert usual_levels(2) == [1, 0] and usual_levels(1) == [0]
    assert make_calls(levels=[30, 60, 0]).unwrapped.levels == [60, 30, 0]
    for levels in ([100], [-1], [30, 120]):
        with pytest.raises(SkipDiffError, match="must be at least 0 and below T = 100"):
            make_calls(levels=levels)


def test_dictionaries_tell_what_there_is_to_know(make_calls, tiny):
    env = make_calls(observation="dict", budget=3, step_cost=(0.1, 0.2)).unwrapped
    seen, info = env.reset(seed=0)
    assert (seen["level"], seen["evaluations"], seen["budget"]) == (100, 0, 3)
    assert not seen["change"].any() and seen["step_cost"][0] == np.float32(info["step_cost"])
    lr = env._episodes.pairs[0].lr
    condition = tiny.condition(to_planes(lr[None]))
    assert np.allclose(seen["x0"], condition[0])
    process = CallProcess(tiny)
    state = process.start(condition, [NoiseKey(image_key(lr), info["noise_seed"])])
    assert np.array_equal(seen["latent"], state.latent[0])
    for action, level in ((4, 50.0), (9, 15.0)):
        before, state = state, process.call(state, state.level, level)
        seen, *_ = env.step(action)
        assert np.allclose(seen["latent"], state.latent[0].clamp(-20, 20), atol=1e-5)
        assert np.allclose(seen["change"], (state.x0 - before.x0)[0], atol=1e-5)
        assert seen["level"] == level and seen["budget"] + seen["evaluations"] == 3
    *_, ended, _, info = env.step(0)  # the last: whatever it is, it leads to 0
    assert ended and info["calls"][2].tolist() == [15, 0, 0]


def test_results_that_have_no_score_are_worth_nothing(make_calls):
    def never(images):
        return np.full(len(images), np.nan)

    env = make_calls(metric=never, budget=2, step_cost=0.5).unwrapped
    env.reset(seed=0)
    _, reward, _, _, info = env.step(3)
    assert reward == -0.5 and np.isnan(info["metric"])
    _, reward, ended, _, info = env.step(3)
    assert ended and reward == -0.5 and not info["reward_valid"]


def test_rendering_shows_calls_and_skips(make_calls):
    env = make_calls(render_mode="rgb_array", actions="full", budget=4)
    env.reset(seed=0)
    frames = [env.render()]
    for action in (0, 3 * 19 * 1 + 3 * 4, 0, 0):
        *_, ended, _, _ = env.step(action)
        frames.append(env.render())
    assert ended and len({frame.shape for frame in frames}) == 1
    assert all((a != b).any() for a, b in zip(frames, frames[1:], strict=False))
    cells = env.unwrapped._episodes.cells(0)
    assert [cell.skips for cell in cells] == [False, True, False, False]
    assert cells[1].inside == "67.5 > 50"


def test_copies_and_pickles_go_on_alike(make_calls):
    env = make_calls(actions="full", observation="dict").unwrapped
    env.reset(seed=5)
    env.step(6)
    twins = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    wanted = env.step(40)
    for twin in twins:
        found = twin.step(40)
        assert found[1] == wanted[1] and (found[0]["latent"] == wanted[0]["latent"]).all()
    assert env.spec is None or env.spec.max_episode_steps


@pytest.mark.parametrize("action", [0.7, "1", None, 19, -1, [1], np.float32(1)])
def test_what_is_no_action_is_refused(make_calls, make_batch, action):
    env = make_calls().unwrapped
    env.reset(seed=0)
    with pytest.raises(SkipDiffError, match=r"is not in Discrete\(19\): give an integer from 0 to 18"):
        env.step(action)


def test_bad_requests_are_named(make_calls, make_batch):
    envs = make_batch(2)
    envs.reset(seed=0)
    for actions in ([0, 19], [-1, 0], [0.5, 1.0]):
        with pytest.raises(SkipDiffError, match="actions must be integers from 0 to 18"):
            envs.step(np.array(actions))
    for arguments, words in (
        ({"actions": "all"}, "unknown actions 'all'"),
        ({"episode": "plans"}, "unknown episode 'plans'"),
        ({"budget": 0}, "budget=0 must be a whole number of at least 1"),
        ({"episode": "plan"}, "there is no plan to choose from: give plans="),
        (
            {"episode": "plan", "plans": ["100>50>0"], "budget": 1},
            "there is no plan to choose from: .* within the budget",
        ),
        ({"episode": "plan", "plans": ["ccsr:2"]}, "must all be plans that begin with 100, such as '100>0'"),
        ({"episode": "plan", "plans": ["20>5>0"]}, "must all be plans that begin with 100"),
        ({"episode": "plan", "plans": ["100>50"]}, "last call must lead to 0"),
        ({"metric": {"lpips": -1}}, "must map names of metrics to numbers above 0"),
        ({"plans": PLANS}, "give that too"),
        ({"episode": "plan", "plans": PLANS, "levels": [50]}, "not used with episode='plan'"),
        ({"episode": "plan", "plans": PLANS, "actions": "full"}, "not used with episode='plan'"),
        ({"episode": "plan", "plans": "100>50>0"}, "plans='100>50>0' must be a list of plans"),
        ({"levels": "50"}, "levels='50' must be a list of numbers"),
        ({"levels": 50}, "levels=50 must be a list of numbers"),
        ({"levels": ["a"]}, r"levels=\['a'\] must be a list of numbers"),
        ({"levels": [50, np.nan]}, "must be at least 0 and below T = 100"),
        ({"levels": [100]}, "must be at least 0 and below T = 100"),
    ):
        with pytest.raises(ValueError, match=words):
            make_calls(**arguments)


def test_tensors_stay_where_they_are(make_batch):
    envs = make_batch(2, tensors=True, observation="dict", actions="full")
    observation, _ = envs.reset(seed=0)
    assert all(isinstance(value, torch.Tensor) for value in observation.values())
    masks = envs.unwrapped.action_masks()
    assert masks.shape == (2, 9 * 19) and masks.dtype == np.bool_
    _, reward, ended, *_ = envs.step(torch.tensor([0, 5]))
    assert reward.dtype == torch.float32 and not ended.any()
