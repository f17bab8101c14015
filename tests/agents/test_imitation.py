"""The ceiling: values of all states from the outcomes alone, and a network that learns them."""

import numpy as np
import pytest
import torch

from skipdiff_agents.evaluate import Evaluator, best_start, fixed_starts
from skipdiff_agents.imitation import StartChooser, action_values, imitate, regress_starts
from skipdiff_agents.pairs import UNSEEN, all_pairs
from skipdiff_env.policies.file import NetworkPolicy
from skipdiff_env.policies.network import SPNConfig


@pytest.mark.parametrize("rule", ["reset", "hold"])
def test_values_lead_to_the_optimum_from_every_state(setting, rule):
    evaluator = Evaluator(setting(skip_rule=rule), all_pairs(1, 1))
    (optimum,) = evaluator.optima()
    values = action_values(optimum, 5, rule)
    assert max(values[5, ()]) == optimum.reward
    # every schedule, played: its reward is never above the value of any state on its way
    for number in range(16):
        actions = [number >> i & 1 for i in range(4)]
        played = iter(actions)
        (result,) = evaluator(lambda latent, memory, played=played: ([next(played)], None))
        history = ()
        for level, action in zip(range(5, 1, -1), actions, strict=True):
            assert values[level, history][action] >= result.reward - 1e-9
            history = (*history, level) if action == 0 else () if rule == "reset" else history
        # and the last action's value is exactly what is paid
        assert result.reward == pytest.approx(optimum_of(optimum, history, rule), abs=1e-6)


def optimum_of(optimum, history, rule):
    for outcome in optimum.outcomes:
        past = ()
        for level, action in zip(range(5, 1, -1), outcome.actions, strict=True):
            past = (*past, level) if action == 0 else () if rule == "reset" else past
        if past == history:
            return outcome.reward
    raise AssertionError(history)


def test_starts_are_read_off_the_optima(setting):
    evaluator = Evaluator(setting(), all_pairs(3, 2))
    table = fixed_starts(evaluator.optima(), 5)
    for start in range(1, 6):
        np.testing.assert_allclose(table[:, start - 1], [r.reward for r in evaluator(start)], rtol=1e-5)
    assert best_start(evaluator.optima(), 5) == 2


@pytest.mark.slow
def test_imitation_learns_the_right_answers(setting):
    config = SPNConfig(16, 16, "group")
    evaluator = Evaluator(setting(), all_pairs(4, 2))
    before = torch.random.get_rng_state()
    network = imitate(evaluator, config, epochs=250, learning_rate=3e-3)
    assert torch.equal(before, torch.random.get_rng_state())
    rewards = [r.reward for r in evaluator(NetworkPolicy(network, config))]
    assert np.mean(rewards) >= 0.95 * np.mean([o.reward for o in evaluator.optima()])


def test_the_chooser_follows_its_start():
    chooser = StartChooser(16, 5)
    with torch.no_grad():
        chooser.layers[-1].weight.zero_()
        chooser.layers[-1].bias.copy_(torch.tensor([0.0, 0, 1, 0, 0]))
    memory, actions = None, []
    for _ in range(4):
        chosen, memory = chooser(torch.randn(2, 3, 40, 40), memory)
        actions.append(chosen.tolist())
    assert actions == [[1, 1], [1, 1], [0, 0], [0, 0]]  # start 3 of 5


def test_starts_are_learned_from_the_first_latent(setting):
    """One start is best in this game, whatever the picture; new noise."""
    evaluator, new = (Evaluator(setting(), all_pairs(4, 2, first)) for first in (0, UNSEEN))
    before = torch.random.get_rng_state()
    chooser = regress_starts(evaluator, new, 16, epochs=15)
    assert torch.equal(before, torch.random.get_rng_state())
    rewards = [r.reward for r in new(chooser)]
    assert rewards == pytest.approx([r.reward for r in new(best_start(evaluator.optima(), 5))])
