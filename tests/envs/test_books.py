"""The books: what a schedule costs, what it is paid, and what is told of it in every step."""

from itertools import product

import numpy as np
import pytest
import torch

from skipdiff_env.diffusion import DENOISE, SKIP, NoiseKey, SkipProcess
from skipdiff_env.envs import SkipDiffusionEnv
from skipdiff_env.envs.books import OPEN, OUTCOME, Books, evaluations, paid, refinements

FINE, COARSE = 5, 4


def test_schedules_cost_the_calls_that_the_process_makes(interpolation):
    """All schedules, and all their beginnings, one row each."""
    model = interpolation(steps=20)
    process = SkipProcess(model, COARSE, FINE)
    schedules = np.array(list(product((DENOISE, SKIP), repeat=FINE - 1)))
    condition = model.condition(torch.zeros((len(schedules), 3, 4, 4), dtype=torch.uint8))
    state = process.start(condition, [NoiseKey(0, 0)] * len(schedules))
    told = np.full_like(schedules, OPEN)
    assert (refinements(told) == 0).all()
    for i, actions in enumerate(schedules.T):
        np.testing.assert_array_equal(evaluations(told, COARSE), state.evaluations)
        state = process.step(state, actions)
        told[:, i] = actions
    state = process.finish(state)
    np.testing.assert_array_equal(evaluations(told, COARSE), state.evaluations)
    np.testing.assert_array_equal(paid(1.0, told, 0.25), 1 - 0.25 * (state.evaluations - (COARSE - 1)))
    assert sum(model.rows) == state.evaluations.sum()  # calls of the model, row by row


def test_the_books_agree_with_the_process_whatever_rows_are_reset(make_vec):
    envs, rng = make_vec(3, coarse_steps=2, fine_steps=5), np.random.default_rng(0)
    envs.reset(seed=0)
    books, levels = envs.unwrapped._episodes.books, set()
    for step in range(30):
        if step % 4 == 3:
            envs.reset(options={"reset_mask": np.array([step % 3 == row for row in range(3)])})
        envs.step(rng.integers(0, 2, 3))
        state = envs.unwrapped._episodes.state
        np.testing.assert_array_equal(books.evaluations, state.evaluations)
        np.testing.assert_array_equal(books.taken, 5 - np.maximum(state.level, 1))
        levels.add(tuple(state.level))
    assert any(len(set(row)) == 3 for row in levels)


def kinds(info):
    return {key: (type(value), np.shape(value), getattr(value, "dtype", None)) for key, value in info.items()}


@pytest.mark.parametrize("arguments", [{}, {"return_image": True}, {"low_resolution": True}])
def test_infos_have_the_same_form_in_every_step_and_say_what_is_known(make, arguments):
    env = make(step_cost=0.5, **arguments)
    unknown = OUTCOME | ({"sr_image": np.zeros((32, 32, 3), np.uint8)} if "return_image" in arguments else {})
    form, actions = None, [0, 1, 1, 0, 0, 1, 0, 1, 0]
    for _ in range(2):  # the second episode begins with clean books
        told = [env.reset(seed=1)[1], *(env.step(action)[4] for action in actions)]
        for step, info in enumerate(told):
            form = form or kinds(info)
            assert kinds(info) == form and info["step_cost"] == 0.5
            assert info["actions"].dtype == np.int8
            assert info["actions"].tolist() == actions[:step] + [OPEN] * (9 - step)
            for key, value in unknown.items():
                if step < 9:
                    np.testing.assert_array_equal(info[key], value)
        assert told[-1]["reward_valid"] and told[-1]["metric"] > 0 and np.any(told[-1].get("sr_image", True))
        originals = "low_resolution" not in arguments
        assert np.isfinite([told[-1]["psnr"], told[-1]["ssim"]]).tolist() == [originals] * 2


def test_the_manual_lists_the_keys(make):
    text = SkipDiffusionEnv.__doc__.split("## Info\n")[1].split("## Version")[0]
    cells = [line.split("|")[1] for line in text.splitlines() if line.strip().startswith("| `")]
    listed = [name.strip(" `") for cell in cells for name in cell.split(",")]
    env = make(return_image=True)
    assert listed == list(env.reset()[1])


def test_infos_are_not_changed_afterwards(make, make_vec, assert_close):
    """Nor do changes of an info reach the books."""
    env, envs = make(return_image=True), make_vec(2, return_image=True)
    for any_env, action in ((env, 0), (envs, [0, 1])):
        infos = [any_env.reset(seed=0)[1]]
        kept = [{key: np.copy(value) for key, value in infos[0].items()}]
        for _ in range(9):
            infos.append(any_env.step(action)[4])
            kept.append({key: np.copy(value) for key, value in infos[-1].items()})
        for info, copy in zip(infos, kept, strict=True):
            for key in info:
                np.testing.assert_array_equal(info[key], copy[key])
        infos[-1]["actions"][...] = 7
        assert 7 not in any_env.unwrapped._episodes.books.actions


def test_a_result_without_a_quality_is_paid_nothing():
    books = Books(3, COARSE, FINE - 1, OUTCOME)
    books.begin([0, 1, 2], [5, 6, 7], 2**63 - 1, [0.0, 0.5, 1.0])
    for actions in ([0, 1, 0], [1, 1, 0], [1, 1, 1], [1, 0, 1]):
        costs = books.decide([0, 1, 2], actions)
    np.testing.assert_array_equal(costs, [-0.0, -1.0, -1.0])  # each takes the last step, the second denoises
    none = np.full(2, np.nan)
    rewards = books.finish(
        [0, 2], np.array([np.inf, 0.25]), metric=np.array([0.0, 4.0]), psnr=none, ssim=none
    )
    assert rewards.tolist() == [0.0, 0.25] and books.outcome["reward_valid"].tolist() == [False, False, True]
    infos = books.infos([0, 1, 2])
    assert infos["image"].tolist() == [5, 6, 7] and infos["noise_seed"].tolist() == [2**63 - 1] * 3
    assert infos["metric"].tolist() == [0.0, OUTCOME["metric"], 4.0] and infos["_metric"].all()
    assert infos["evaluations"].tolist() == [5, 5, 6]
