"""The exact policy gradient: sums over all schedules, and an agent that finds the right answer."""

from itertools import product

import numpy as np
import pytest
import torch

from skipdiff_agents.evaluate import Evaluator, best_start
from skipdiff_agents.exact import Decisions, decide, train_exactly
from skipdiff_agents.pairs import UNSEEN, all_pairs
from skipdiff_agents.recording import RecordedSetting
from skipdiff_env import SkipDiffError
from skipdiff_env.diffusion.process import history_after
from skipdiff_env.envs.recordings import Graph
from skipdiff_env.policies.file import NetworkPolicy
from skipdiff_env.policies.network import SkipProposalNetwork, SPNConfig

FINE, PRICE, TEMPERATURE = 5, 0.3, 0.7


@pytest.mark.parametrize("rule", ["reset", "hold"])
def test_the_expected_reward_is_the_sum_over_all_schedules(rule):
    graph, generator = Graph(FINE, rule), torch.Generator().manual_seed(0)
    decisions = Decisions(graph)
    count = len(decisions.levels)
    assert count == FINE * (FINE - 1) // 2 if rule == "reset" else count == 2 ** (FINE - 1) - 1
    logits = torch.randn(2, count, 2, generator=generator, dtype=torch.float64)
    rewards = torch.randn(2, len(graph.outcomes), generator=generator, dtype=torch.float64)
    number = {
        (int(t), int(s)): d for d, (t, s) in enumerate(zip(decisions.levels, decisions.states, strict=True))
    }
    expected = torch.zeros(2, dtype=torch.float64)
    for actions in product((0, 1), repeat=FINE - 1):
        chance, earned, history = torch.ones(2), torch.zeros(2), ()
        for level, action in zip(range(FINE, 1, -1), actions, strict=True):
            log = logits[:, number[level, graph.states[history]]].log_softmax(1)[:, action]
            chance = chance * log.exp()
            earned = earned - PRICE * (action == 0) - TEMPERATURE * log
            history = history_after(history, level, action, rule)
        expected += chance * (earned + rewards[:, graph.outcomes[history]])
    found = decisions.expected_reward(logits, rewards, PRICE, TEMPERATURE)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("rule", ["reset", "hold"])
def test_the_likeliest_actions_lead_where_they_should(rule):
    graph = Graph(FINE, rule)
    decisions = Decisions(graph)
    for history, outcome in graph.outcomes.items():
        logits = np.zeros((1, len(decisions.levels), 2))
        for d, level in enumerate(decisions.levels):
            logits[0, d] = (1, 0) if level in history else (0, 1)
        assert decisions.follow(logits).tolist() == [outcome]


@pytest.fixture
def recorded(setting, tmp_path):
    def make(**changes):
        return RecordedSetting(**vars(setting(metric="psnr", **changes)), folder=tmp_path, sizes=(16,))

    return make


def test_its_logits_are_those_of_the_network_step_by_step(recorded):
    here = recorded()
    pairs = all_pairs(2, 1)
    network = SkipProposalNetwork(SPNConfig(16, 8, "group", "clock", FINE)).eval()
    decisions = Decisions(here.graph)
    latents = torch.from_numpy(np.stack([here.latents(*pair, 16) for pair in pairs])).float()
    with torch.no_grad():
        at_once = decide(network, latents, decisions)
        for d, (level, state) in enumerate(zip(decisions.levels, decisions.states, strict=True)):
            memory = torch.full((2, 1), float(FINE - level))
            torch.testing.assert_close(at_once[:, d], network(latents[:, state], memory)[0])


@pytest.mark.parametrize("rule", ["reset", "hold"])
def test_an_agent_finds_the_right_answer(recorded, rule):
    here = recorded(skip_rule=rule)
    training, new = Evaluator(here, all_pairs(4, 2)), Evaluator(here, all_pairs(4, 2, UNSEEN))
    before = torch.random.get_rng_state()
    config = SPNConfig(16, 32, "group", "clock", FINE)
    network = train_exactly(training, new, config, epochs=40, learning_rate=3e-3, batch=8)
    assert torch.equal(before, torch.random.get_rng_state())
    rewards = [r.reward for r in new(NetworkPolicy(network, config))]
    assert np.mean(rewards) >= 0.95 * np.mean([o.reward for o in new.optima()])
    if rule == "reset":
        best = best_start(training.optima(), FINE)
        assert np.mean(rewards) >= 0.99 * np.mean([r.reward for r in new(best)])


def test_what_it_cannot_learn_from(setting, recorded):
    alive, here = Evaluator(setting(), all_pairs(1, 1)), Evaluator(recorded(), all_pairs(1, 1))
    with pytest.raises(SkipDiffError, match="recorded episodes"):
        train_exactly(alive, here, SPNConfig(16, 8, "group", "clock", FINE))
    with pytest.raises(SkipDiffError, match="memory 'gru'"):
        train_exactly(here, here, SPNConfig(16, 8, "group"))
