"""The laws of the state machine: rows, levels, order, what is refused, what never changes."""

import itertools

import numpy as np
import pytest
import torch

from skipdiff_env.diffusion import NoiseSchedule, SkipProcess, keyed_normal, random_model, tiny_config
from tests.reference.toy import SIZE, Toy, drive, make_batch

PAIRS = [(10, 10), (5, 20), (20, 5), (10, 100), (1, 100)]


@pytest.mark.parametrize("prediction, tolerance", [("v", 1e-5), ("noise", 2e-3)])
def test_a_row_does_not_depend_on_its_batch(prediction, tolerance):
    model = random_model(tiny_config(prediction=prediction))
    process = SkipProcess(model, 10, 10, "hold")
    condition, keys = make_batch(5, (3, 16, 16))
    actions = np.random.default_rng(2).integers(0, 2, (5, 9))
    together, _ = drive(process, condition, keys, actions)
    for row in range(5):
        alone, _ = drive(process, condition[row : row + 1], keys[row : row + 1], actions[row : row + 1])
        torch.testing.assert_close(together.x0[row], alone.x0[0], atol=tolerance, rtol=0)
        torch.testing.assert_close(together.coarse[row], alone.coarse[0], atol=tolerance, rtol=0)
        assert together.evaluations[row] == alone.evaluations[0]


def test_the_same_batch_twice_is_the_same_to_the_bit():
    process = SkipProcess(random_model())
    condition, keys = make_batch(3, (3, 16, 16))
    actions = np.random.default_rng(2).integers(0, 2, (3, 9))
    first, second = (drive(process, condition, keys, actions)[0] for _ in range(2))
    assert torch.equal(first.x0, second.x0) and torch.equal(first.coarse, second.coarse)


def test_equal_keys_draw_equal_noise():
    model = Toy()
    condition, keys = make_batch(3)
    keys[2] = keys[0]
    start = SkipProcess(model, 1).start(condition, keys)  # no CSA: the pure noise of level T
    assert torch.equal(start.latent[0], start.latent[2])
    assert not torch.equal(start.latent[0], start.latent[1])
    same = condition[[0, 1, 0]]
    final, _ = drive(SkipProcess(model), same, keys, np.zeros((3, 9), int))
    assert torch.equal(final.x0[0], final.x0[2])


def test_the_network_is_told_the_level_it_is_at():
    """CSA at 100, 90 … 20, FSR at 10 … 1; "rebuilt" moves the topmost alone."""
    table = NoiseSchedule.cosine().alpha_bar
    for coarse_levels, top in (("strided", table[100]), ("rebuilt", 0.001 * table[90])):
        model = Toy()
        condition, keys = make_batch(1, (3, 2, 2))
        drive(SkipProcess(model, coarse_levels=coarse_levels), condition, keys, np.zeros((1, 9), int))
        told = torch.cat(model.calls).double().square().numpy()
        expected = [top, *table[90:10:-10], *table[10:0:-1]]
        np.testing.assert_allclose(told, expected, rtol=1e-6)


def test_the_model_says_where_the_coarse_levels_lie_unless_told_otherwise():
    model = random_model(tiny_config(coarse_levels="rebuilt", prediction="noise"))
    condition, keys = make_batch(1, (3, 8, 8))
    states = {
        rule: SkipProcess(model, coarse_levels=rule).start(condition, keys).coarse
        for rule in (None, "rebuilt", "strided")
    }
    assert torch.equal(states[None], states["rebuilt"])
    assert not torch.equal(states[None], states["strided"])


def test_state_after_csa():
    model = Toy()
    condition, keys = make_batch(2)
    for pair in PAIRS:
        state = SkipProcess(model, *pair).start(condition, keys)
        assert state.level.tolist() == [pair[1]] * 2 and state.evaluations.tolist() == [pair[0] - 1] * 2
        assert torch.equal(state.latent, state.coarse) and torch.equal(state.x0, state.coarse_x0)
        assert state.keys == tuple(keys) and len(state) == 2
    nothing = SkipProcess(model, 1).start(condition, keys)
    assert torch.equal(nothing.coarse, keyed_normal(keys, [100, 100], SIZE))
    assert torch.equal(nothing.x0, condition)  # no network call yet


def test_latent_and_x0_belong_together():
    """Reset takes both back to CSA's, hold keeps both, denoise renews both."""
    model = Toy()
    condition, keys = make_batch(1)
    for skip_rule in ("reset", "hold"):
        process = SkipProcess(model, skip_rule=skip_rule)
        first = process.start(condition, keys)
        second = process.step(first, [0])
        assert not torch.equal(second.x0, first.x0) and not torch.equal(second.latent, first.latent)
        third = process.step(second, [1])
        kept = first if skip_rule == "reset" else second
        assert torch.equal(third.x0, kept.x0) and torch.equal(third.latent, kept.latent)
        assert third.level.tolist() == [8] and third.evaluations.tolist() == second.evaluations.tolist()


@pytest.mark.parametrize("skip_rule", ["reset", "hold"])
def test_history_names_the_latent(skip_rule):
    """Rows of one key share a latent exactly when they share the levels they were denoised at."""
    schedules = np.array(list(itertools.product([0, 1], repeat=5)))
    process = SkipProcess(Toy(), 10, 6, skip_rule)
    condition, keys = make_batch(1, (3, 3, 4))
    state = process.start(condition, keys).select([0] * 32)
    assert set(state.history) == {()}
    for step, column in enumerate(schedules.T, 1):
        state = process.step(state, column)
        for row, schedule in enumerate(schedules):
            done = [6 - i for i in range(step) if schedule[i] == 0]
            if skip_rule == "reset":
                last = max((i for i in range(step) if schedule[i] == 1), default=-1)
                done = [t for t in done if t < 6 - last]
            assert state.history[row] == tuple(done)
        by_history = {}
        for history, latent in zip(state.history, state.latent, strict=True):
            assert torch.equal(latent, by_history.setdefault(history, latent))
        assert len(torch.unique(torch.stack(list(by_history.values())), dim=0)) == len(by_history)
    final = process.finish(state)
    assert [h[-1] for h in final.history] == [1] * 32
    assert final.select([3]).history == (final.history[3],)


def test_the_last_latent_is_x0_itself():
    condition, keys = make_batch(2)
    for residual in (None, 5.0):
        model = Toy(residual)
        final, _ = drive(SkipProcess(model), condition, keys, np.zeros((2, 9), int))
        assert torch.equal(final.latent, model.to_latent(final.x0, condition))


def test_callback_sees_every_coarse_jump():
    process = SkipProcess(Toy())
    condition, keys = make_batch(2)
    seen = []
    start = process.start(condition, keys, seen.append)
    assert [s.level.tolist() for s in seen] == [[t, t] for t in range(90, 0, -10)]
    assert [s.evaluations.tolist() for s in seen] == [[n, n] for n in range(1, 10)]
    assert torch.equal(seen[-1].latent, start.latent)
    shorter = SkipProcess(Toy(), 1)
    shorter.start(condition, keys, lambda state: pytest.fail("no coarse jump, no callback"))


def frozen_copy(state):
    tensors = {f: getattr(state, f).clone() for f in ("condition", "latent", "coarse", "x0", "coarse_x0")}
    return tensors, state.level.copy(), state.evaluations.copy(), state.keys


def assert_unchanged(state, copy):
    tensors, level, evaluations, keys = copy
    assert all(torch.equal(getattr(state, name), tensor) for name, tensor in tensors.items())
    assert (state.level == level).all() and (state.evaluations == evaluations).all() and state.keys == keys


@pytest.mark.parametrize("skip_rule", ["reset", "hold"])
@pytest.mark.parametrize("actions", [[0, 0, 0], [1, 1, 1], [0, 1, 0]])
def test_states_are_never_changed_in_place(skip_rule, actions):
    process = SkipProcess(random_model(), skip_rule=skip_rule)
    condition, keys = make_batch(3, (3, 8, 8))
    before = condition.clone()
    states = [process.start(condition, keys)]
    copies = [frozen_copy(states[0])]
    for _ in range(process.decisions):
        states.append(process.step(states[-1], np.array(actions)))
        copies.append(frozen_copy(states[-1]))
    process.finish(states[-1])
    states[3].replace([0, 2], states[7].select([1, 1]))
    for state, copy in zip(states, copies, strict=True):
        assert_unchanged(state, copy)
    assert torch.equal(condition, before)


def test_rows_at_different_levels_share_a_batch():
    process = SkipProcess(random_model(), skip_rule="hold")
    condition, keys = make_batch(3, (3, 8, 8))
    state = process.start(condition, keys)
    states = [state]
    for _ in range(9):
        states.append(process.step(states[-1], [0, 0, 0]))
    mixed = states[0].replace([1], states[4].select([1])).replace([2], states[8].select([2]))
    assert mixed.level.tolist() == [10, 6, 2] and mixed.evaluations.tolist() == [9, 13, 17]
    for actions in ([0, 0, 0], [1, 0, 0], [0, 1, 1]):
        stepped = process.step(mixed, actions)
        assert stepped.level.tolist() == [9, 5, 1]
        for row, source in enumerate((states[0], states[4], states[8])):
            alone = process.step(source.select([row]), actions[row : row + 1])
            for name in ("latent", "x0", "coarse", "coarse_x0", "condition"):
                torch.testing.assert_close(
                    getattr(stepped, name)[row], getattr(alone, name)[0], atol=1e-5, rtol=0
                )
            assert stepped.evaluations[row] == alone.evaluations[0] and stepped.keys[row] == keys[row]
    lowest = states[9].select([0]).replace([], states[0].select([]))
    both = states[9].replace([1], states[5].select([1]))
    last = process.denoise(both)  # a row that ends beside rows that do not
    assert last.level.tolist() == [0, 4, 0]
    torch.testing.assert_close(last.x0[0], process.finish(lowest).x0[0], atol=1e-5, rtol=0)
    assert torch.equal(last.latent[0], last.x0[0])


def test_select_and_replace_move_whole_rows():
    process = SkipProcess(Toy())
    condition, keys = make_batch(4)
    state = process.start(condition, keys)
    later = process.step(state, [0, 1, 0, 1])
    picked = later.select([3, 0, 0])
    assert picked.keys == (keys[3], keys[0], keys[0]) and picked.evaluations.tolist() == [9, 10, 10]
    assert torch.equal(picked.latent, later.latent[[3, 0, 0]])
    back = state.replace([2, 1], later.select([0, 3]))
    assert back.keys == (keys[0], keys[3], keys[0], keys[3])
    assert back.level.tolist() == [10, 9, 9, 10] and back.evaluations.tolist() == [9, 9, 10, 9]
    for name in ("condition", "latent", "coarse", "x0", "coarse_x0"):
        got, old, new = (getattr(s, name) for s in (back, state, later))
        assert torch.equal(got, torch.stack([old[0], new[3], new[0], old[3]]))
    assert len(state.select([])) == 0


def test_boolean_masks_select_what_they_mark():
    """A mask must not be read as the row numbers 0 and 1."""
    condition, keys = make_batch(3)
    state = SkipProcess(Toy(), 1).start(condition, keys)
    assert state.select(np.array([True, False, True])).keys == (keys[0], keys[2])
    others = SkipProcess(Toy(), 1).start(*make_batch(2, seed=9))
    replaced = state.replace(np.array([False, True, True]), others)
    assert replaced.keys == (keys[0], *others.keys)


@pytest.mark.parametrize(
    "actions", [[0, 1], [0, 1, 0, 0], [0, 1, 2], [0, 1, -1], [0, 1, 0.5], 0, [[0, 1, 0]]]
)
def test_bad_actions_are_refused(actions):
    process = SkipProcess(Toy())
    state = process.start(*make_batch(3))
    with pytest.raises(ValueError, match="for each row: rows 3, actions"):
        process.step(state, actions)


@pytest.mark.parametrize(
    "actions", [torch.tensor([0, 1, 0]), (0, 1, 0), np.array([False, True, False]), [0.0, 1.0, 0.0]]
)
def test_actions_come_in_any_container(actions):
    process = SkipProcess(Toy())
    state = process.start(*make_batch(3))
    assert torch.equal(process.step(state, actions).latent, process.step(state, [0, 1, 0]).latent)


def test_steps_out_of_turn_are_refused():
    process = SkipProcess(Toy(), 50)
    state = process.start(*make_batch(2))
    with pytest.raises(ValueError, match=r"level 1, got levels \[2, 2\]"):
        process.finish(state)
    state = process.step(state, [0, 1])
    for actions in ([0, 0], [1, 1]):
        with pytest.raises(ValueError, match="no decision is left"):
            process.step(state, actions)
    done = process.finish(state)
    for call in (process.finish, process.denoise, lambda s: process.step(s, [0, 0])):
        with pytest.raises(ValueError):
            call(done)


def test_csa_alone_leaves_no_decision():
    process = SkipProcess(Toy(), 10, fine_steps=0)
    assert process.decisions == 0
    state = process.start(*make_batch(2))
    with pytest.raises(ValueError, match="no decision"):
        process.step(state, [0, 0])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"coarse_steps": 7}, "coarse_steps=7 must divide"),
        ({"coarse_steps": 0}, "coarse_steps=0 must be a whole number from 1"),
        ({"fine_steps": -1}, "fine_steps=-1 must be a whole number from 0"),
        ({"fine_steps": 101}, "fine_steps=101 must be a whole number from 0"),
        ({"skip_rule": "jump"}, "unknown skip_rule 'jump'"),
        ({"coarse_levels": "clipped"}, "unknown coarse rule 'clipped'"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        SkipProcess(Toy(), **arguments)


@pytest.mark.parametrize("count", [1, 3])
def test_every_row_needs_a_key(count):
    condition, keys = make_batch(3)
    with pytest.raises(ValueError, match="key"):
        SkipProcess(Toy()).start(condition[:2], keys[:count])


def test_defaults_are_the_papers():
    process = SkipProcess(Toy())
    assert (process.coarse_steps, process.fine_steps, process.stride) == (10, 10, 10)
    assert process.skip_rule == "reset"
    assert SkipProcess(Toy(), 5).fine_steps == 20 and SkipProcess(Toy(), 20).fine_steps == 5
