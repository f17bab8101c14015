"""The REINFORCE example learns the game, and its file runs in the sampler's terms."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from skipdiff_agents.evaluate import Evaluator
from skipdiff_agents.pairs import UNSEEN, all_pairs
from skipdiff_env.policies.file import load_policy, save_policy
from skipdiff_env.policies.network import SPNConfig

EXAMPLE = Path(__file__).resolve().parents[2] / "agents" / "examples" / "reinforce.py"


@pytest.mark.slow
def test_reinforce(tmp_path, setting):
    spec = importlib.util.spec_from_file_location("reinforce", EXAMPLE)
    reinforce = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reinforce)
    game = setting(81.0, skip_rule="hold")
    network = reinforce.train(
        50, config=SPNConfig(16, 16, "group"), learning_rate=3e-3, entropy_weight=0.1,
        model=game.model, images=game.source,
        metric=game.metric, coarse_steps=4, skip_rule="hold",
    )  # fmt: skip
    evaluator = Evaluator(game, all_pairs(4, 2, UNSEEN))
    rewards = [r.reward for r in evaluator(load_policy(save_policy(tmp_path / "agent.safetensors", network)))]
    chance = np.mean([r.reward for r in evaluator("random")])
    assert np.mean(rewards) > 1.5 * chance
