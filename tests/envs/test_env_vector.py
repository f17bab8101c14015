"""The batched environment is the single one, many times."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from skipdiff_env.errors import SkipDiffError

MODES = ["NextStep", "SameStep", "Disabled"]


@pytest.fixture
def make_sync(make):
    """Gymnasium's own vector environment around single environments."""

    def make_sync(num_envs, autoreset_mode, **arguments):
        return SyncVectorEnv([lambda: make(**arguments)] * num_envs, autoreset_mode=autoreset_mode)

    return make_sync


def run(envs, actions, mode, seed):
    """All that an environment returns over some episodes; without auto-reset, it is told to reset."""
    results = [envs.reset(seed=seed)]
    for row in actions:
        results.append(envs.step(row))
        if mode == "Disabled" and results[-1][2].any():
            results.append(envs.reset(options={"reset_mask": results[-1][2]}))
    return results


def assert_same(results, others, tolerance, assert_close):
    for result, other in zip(results, others, strict=True):
        for a, b in zip(result, other, strict=True):
            assert_close(a, b, tolerance)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("observation", ["latent", "dict"])
def test_three_episodes_equal_gymnasiums_vector_env(
    make_vec, make_sync, assert_close, request, mode, observation
):
    """Observations, rewards, ends and infos (keys, masks, types) of v- and of noise prediction."""
    actions = np.random.default_rng(1).integers(0, 2, (30, 3))
    for name, tolerance in (("tiny", 1e-5), ("tiny_noise", 2e-3)):
        arguments = {
            "model": request.getfixturevalue(name), "observation": observation, "step_cost": 0.01,
            "return_image": name == "tiny", "coarse_steps": 2, "fine_steps": 10 if name == "tiny" else 4,
        }  # fmt: skip
        ours = run(make_vec(3, autoreset_mode=mode, **arguments), actions, mode, 40)
        theirs = run(make_sync(3, mode, **arguments), actions, mode, 40)
        assert sum(result[2].any() for result in ours if len(result) == 5) >= 3
        if name == "tiny":  # a pixel at the edge between two levels may fall on either side of it
            for results in (ours, theirs):
                for result in results:
                    _without_pictures(result[-1])
        assert_same(ours, theirs, tolerance, assert_close)


def _without_pictures(infos):
    for pictures in (infos.pop("sr_image", None), infos.get("final_info", {}).pop("sr_image", None)):
        assert pictures is None or (pictures.dtype == np.uint8 and pictures.shape == (3, 32, 32, 3))


def test_env_i_is_the_single_env_of_seed_plus_i(make, make_vec, assert_close):
    """Said once more without Gymnasium's vector environment in between."""
    envs, singles = make_vec(3), [make() for _ in range(3)]
    batch = envs.reset(seed=40)
    alone = [env.reset(seed=40 + i) for i, env in enumerate(singles)]
    rng = np.random.default_rng(0)
    for step in range(30):
        if step:
            actions = rng.integers(0, 2, 3)
            batch = envs.step(actions)
            if step % 10 == 0:  # nine decisions, and the step that begins the next episode
                alone = [env.reset() for env in singles]
                assert not batch[1].any() and not batch[2].any()
            else:
                alone = [env.step(int(action)) for env, action in zip(singles, actions, strict=True)]
        for i, single in enumerate(alone):
            assert_close(batch[0][i], single[0], 1e-5)
            assert set(single[-1]) == {key for key in batch[-1] if not key.startswith("_")}
            for key, value in single[-1].items():
                assert batch[-1][f"_{key}"][i]
                assert_close(np.asarray(batch[-1][key][i]), np.asarray(value), 1e-5)
            if len(single) == 5:
                assert batch[1][i] == pytest.approx(single[1], rel=1e-5) and batch[2][i] == single[2]


def test_equal_batch_sizes_agree_to_the_bit(make_vec, make_sync, assert_close):
    actions = np.random.default_rng(2).integers(0, 2, (30, 1))
    for mode in MODES:
        ours = run(make_vec(1, autoreset_mode=mode), actions, mode, 3)
        assert_same(ours, run(make_sync(1, mode), actions, mode, 3), 0, assert_close)
    # who shares the batch does not matter
    for_all = np.repeat(actions, 3, axis=1)
    one = run(make_vec(3), for_all, "NextStep", [7, 8, 9])
    two = run(make_vec(3), for_all, "NextStep", [7, 100, 200])
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a[0][0], b[0][0])
        if len(a) == 5:
            assert a[1][0] == b[1][0]


def test_same_seed_twice_is_the_same_to_the_bit(make_vec, assert_close):
    envs = make_vec(3)
    actions = np.random.default_rng(0).integers(0, 2, (20, 3))
    one = run(envs, actions, "NextStep", 5)
    envs.step(actions[0])
    assert_same(one, run(envs, actions, "NextStep", 5), 0, assert_close)
    assert_same(one, run(make_vec(3), actions, "NextStep", 5), 0, assert_close)


def test_rows_at_different_levels(make_vec, make_sync, assert_close):
    """reset_mask in mid-episode, in every mode, against Gymnasium's own."""
    for mode in MODES:
        rng = np.random.default_rng(4)
        steps = {"coarse_steps": 2, "fine_steps": 4}
        pair = make_vec(3, autoreset_mode=mode, **steps), make_sync(3, mode, **steps)
        results = [[envs.reset(seed=1)] for envs in pair]
        ended = np.zeros(3, bool)
        for step in range(16):
            mask = ended.copy() if mode == "Disabled" else np.zeros(3, bool)
            mask[step % 3] |= step in (1, 2, 5, 9)
            actions = rng.integers(0, 2, 3)
            for envs, log in zip(pair, results, strict=True):
                if mask.any():
                    seed = [None, 100 + step, None] if step == 5 else None
                    log.append(envs.reset(seed=seed, options={"reset_mask": mask.copy()}))
                log.append(envs.step(actions))
            ended = results[0][-1][2]
        levels = {tuple(r[-1]["evaluations"]) for r in results[0]}
        assert any(len(set(level)) > 1 for level in levels)
        assert_same(*results, 1e-5, assert_close)


def test_next_step_ignores_the_action_that_begins_an_episode(make_vec):
    envs = make_vec(2)
    envs.reset(seed=0)
    for _ in range(9):
        envs.step([0, 1])
    _, rewards, terminated, truncated, infos = envs.step([7, -1])
    assert not rewards.any() and not terminated.any() and not truncated.any()
    assert infos["evaluations"].tolist() == [9, 9] and (infos["actions"] == -1).all()
    with pytest.raises(ValueError, match="actions must be integers from 0 to 1"):
        envs.step([7, -1])


def test_same_step_hands_over_the_last_observation(make_vec):
    envs = make_vec(2, autoreset_mode=AutoresetMode.SAME_STEP, observation="dict")
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    envs.reset(seed=0)
    for _ in range(8):
        *_, infos = envs.step([0, 1])
        assert "final_obs" not in infos
    observation, rewards, terminated, _, infos = envs.step([0, 1])
    assert terminated.all() and (rewards == infos["final_info"]["metric"]).all()
    assert [o["step"] for o in infos["final_obs"]] == [9, 9] and observation["step"].tolist() == [0, 0]
    assert infos["final_obs"][1] in envs.single_observation_space
    assert infos["final_info"]["evaluations"].tolist() == [19, 10] and infos["evaluations"].tolist() == [9, 9]


def test_disabled_refuses_to_step_what_is_over(make_vec):
    envs = make_vec(2, autoreset_mode="Disabled", fine_steps=2)
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        envs.step([0, 0])
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset all environments once"):
        envs.reset(options={"reset_mask": np.array([True, False])})
    envs.reset(seed=0)
    _, _, terminated, _, _ = envs.step([0, 0])
    assert terminated.all()
    envs.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"environments \[1\] are over"):
        envs.step([0, 0])


@pytest.mark.parametrize("mask", [np.zeros(2, bool), np.ones(3, bool), np.ones(2), [True, True]])
def test_bad_reset_masks(make_vec, mask):
    envs = make_vec(2)
    envs.reset()
    with pytest.raises(ValueError, match="reset_mask"):
        envs.reset(options={"reset_mask": mask})


def test_seeds_of_all_kinds(make_vec):
    envs = make_vec(3)
    first, infos = envs.reset(seed=np.int64(5))
    assert envs.np_random_seed == (5, 6, 7) and len(envs.np_random) == 3
    again, _ = envs.reset(seed=[np.int32(5), 6, None])
    np.testing.assert_array_equal(first[:2], again[:2])
    assert (first[2] != again[2]).any()
    with pytest.raises(ValueError, match="one for each environment: environments 3, seeds 2"):
        envs.reset(seed=[1, 2])
    assert infos["noise_seed"].dtype == np.int64 and infos["_noise_seed"].all()


def test_options_for_all_or_for_each(make_vec, assert_close):
    envs = make_vec(3, noise="fixed")
    options = {"image": [2, 0, 2], "noise_seed": np.array([4, 4, 5])}
    observation, infos = envs.reset(options=options)
    assert infos["image"].tolist() == [2, 0, 2] and infos["noise_seed"].tolist() == [4, 4, 5]
    assert set(options) == {"image", "noise_seed"}
    same, _ = envs.reset(options={"image": 2, "noise_seed": 4})
    assert_close(same[0], same[1], 0), assert_close(same[0], observation[0], 0)
    assert (observation[2] != observation[0]).any()
    with pytest.raises(ValueError, match="unknown reset option 'reset_masks'"):
        envs.reset(options={"reset_masks": np.ones(3, bool)})


def test_one_call_of_the_network_for_all(make_vec, interpolation):
    model = interpolation()
    envs = make_vec(5, model=model, image_size=32)
    envs.reset()
    assert model.rows == [5] * 9
    envs.step([0, 1, 0, 1, 0])
    envs.step([1] * 5)
    assert model.rows[9:] == [3]  # only the elements that denoise go through
    for _ in range(7):
        envs.step([0] * 5)
    assert model.rows[10:] == [5] * 8  # the last step denoises twice


def test_one_call_of_the_metric_for_all(make_vec):
    sizes = []

    def metric(images):
        sizes.append(len(images))
        return np.ones(len(images))

    envs = make_vec(4, metric=metric)
    envs.reset()
    for _ in range(9):
        envs.step([1] * 4)
    assert sizes == [4]


@pytest.mark.parametrize("observation", ["latent", "dict"])
def test_tensors_instead_of_arrays(make_vec, observation):
    arrays = make_vec(2, observation=observation, autoreset_mode="SameStep")
    tensors = make_vec(2, observation=observation, autoreset_mode="SameStep", tensors=True)
    expected, got = [arrays.reset(seed=3)[0]], [tensors.reset(seed=3)[0]]
    for i in range(18):
        actions = torch.tensor([i % 2, 0])
        observation_, rewards, terminated, truncated, infos = tensors.step(actions)
        plain = arrays.step(actions.numpy())
        assert rewards.dtype == torch.float32 and terminated.dtype == truncated.dtype == torch.bool
        np.testing.assert_allclose(rewards, plain[1], rtol=1e-6)
        np.testing.assert_array_equal(terminated, plain[2])
        assert not truncated.any()
        expected.append(plain[0]), got.append(observation_)
        if terminated.any():
            expected += list(plain[4]["final_obs"])
            got += list(infos["final_obs"])
    for array, tensor in zip(expected, got, strict=True):
        pairs = [(array[k], tensor[k]) for k in array] if isinstance(array, dict) else [(array, tensor)]
        for a, b in pairs:
            assert isinstance(b, torch.Tensor) and not b.requires_grad
            np.testing.assert_array_equal(a, b.numpy())


def test_observations_are_not_reused(make_vec):
    for tensors in (False, True):
        envs = make_vec(2, tensors=tensors)
        first, _ = envs.reset(seed=0)
        kept = first.clone() if tensors else first.copy()
        first += 1  # what the caller does to it is the caller's business
        held, *_ = envs.step([1, 1])  # reset rule, skipped at once: x_S1 again
        assert (held == kept).all()


def test_spaces_are_batched(make_vec):
    envs = make_vec(4, observation="dict")
    assert envs.observation_space["latent"].shape == (4, 3, 32, 32)
    assert envs.action_space == gymnasium.spaces.MultiDiscrete([2] * 4)
    observation, _ = envs.reset(seed=0)
    assert observation in envs.observation_space
    observation, *_ = envs.step(envs.action_space.sample())
    assert observation in envs.observation_space


def test_misuse(make_vec):
    with pytest.raises(ValueError, match="num_envs=0 must be a whole number of at least 1"):
        make_vec(0)
    for count in ("2", 2.0, True):
        with pytest.raises(SkipDiffError, match="num_envs=.* must be a whole number"):
            make_vec(count)
    for mode in ("Sometimes", "SAME_STEP", None, []):
        with pytest.raises(SkipDiffError, match="use one of 'NextStep', 'SameStep', 'Disabled'"):
            make_vec(1, autoreset_mode=mode)
    with pytest.raises(TypeError, match="modell"):
        make_vec(1, modell="natural-4x")
    envs = make_vec(2)
    envs.reset()
    with pytest.raises(ValueError, match=r"actions must have shape \(2,\), got \(3,\)"):
        envs.step([0, 0, 0])
    envs.close()
    envs.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("longest", [3, 9, 20])
def test_a_limit_cuts_episodes_as_gymnasiums_wrapper_does(make_vec, make_sync, assert_close, mode, longest):
    """F - 1 is 9: a limit of 3 truncates, one of 20 never does. One of 9 comes with the end, which is no
    truncation, though the wrapper calls it one."""
    ours = make_vec(2, autoreset_mode=mode, max_episode_steps=longest)
    theirs = make_sync(2, mode, max_episode_steps=longest)
    for env in (ours, theirs):
        env.reset(seed=3)
    for step in range(11):
        (a, *first), (b, *second) = (env.step(np.array([step % 2, 0])) for env in (ours, theirs))
        assert_close(a, b, 1e-4)
        second[2] = second[2] & ~second[1]
        for mine, other in zip(first[:3], second[:3], strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-4)
        if mode == "Disabled" and (over := first[1] | first[2]).any():
            for env in (ours, theirs):
                env.reset(options={"reset_mask": over})
    assert ours.max_episode_steps == (3 if longest == 3 else None)


def test_limits_that_are_none(make_vec):
    for limit in (0, 2.5, "3", -2):
        with pytest.raises(SkipDiffError, match="max_episode_steps=.* must be a whole number of at least 1"):
            make_vec(2, max_episode_steps=limit)
    assert make_vec(2, max_episode_steps=-1).max_episode_steps is None


FORKED = """
import gymnasium, sys, torch
from skipdiff_env.diffusion import random_model, tiny_config
torch.set_num_threads(2)
model = random_model(tiny_config(image_size=96))
arguments = {"model": model, "metric": "lpips"}
env = gymnasium.make("skipdiff_env:SkipDiff-v0", **arguments)
env.reset(seed=0)
env.step(0)
envs = gymnasium.make_vec("SkipDiff-v0", num_envs=2, vectorization_mode="async", **arguments)
envs.reset(seed=0)
envs.step([0, 1])
envs.close()
print("played")
"""


def test_workers_that_are_forked_do_not_wait_for_threads_that_they_lack():
    """The parent has computed with two threads; children of a fork have but one."""
    ran = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0 and ran.stdout.split() == ["played"], ran.stderr
