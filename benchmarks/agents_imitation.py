"""The imitation of the optimum as a reference beside agents; kept, so that it is taught once."""

from __future__ import annotations

import numpy as np
from safetensors.torch import load_file, save

from skipdiff_agents.evaluate import Evaluator
from skipdiff_agents.imitation import StartChooser, imitate, regress_starts
from skipdiff_agents.train import BEST
from skipdiff_env.diffusion.pretrained import write_atomically
from skipdiff_env.policies import Policy
from skipdiff_env.policy_file import load_policy, save_policy
from skipdiff_env.spn import SPNConfig

from .agents_study import Study, say

STARTS = "starts.safetensors"


def imitation(study: Study, epochs: int, seed: int) -> Policy:
    """A network taught on the training episodes; of two, the one that does better on validation.

    Under ``reset`` the two are :func:`skipdiff_agents.imitation.imitate`, which decides at every level
    as agents do, and ``regress_starts``, which decides once. Under ``hold`` there is the first alone.

    Args:
        study: its episodes.
        epochs: how often each training episode is shown.
        seed: of weights and order.
    """
    size, fine = study.args.size, study.training.process.fine_steps
    train, valid = study.evaluator("train"), study.evaluator("valid")
    folder = study.runs / f"imitation-{size}-{epochs}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / BEST).is_file():
        say(f"imitation, seed {seed}")
        config = SPNConfig(size, 128, "group", "clock", fine)
        save_policy(folder / BEST, imitate(train, config, epochs, seed=seed, validation=valid))
    policies: list[Policy] = [load_policy(folder / BEST)]
    if study.training.skip_rule == "reset":
        file = folder / STARTS
        if not file.is_file():
            say(f"imitation of starts, seed {seed}")
            made = regress_starts(train, valid, size, epochs, seed=seed)
            write_atomically(file, save(made.state_dict()))
        chooser = StartChooser(size, fine)
        chooser.load_state_dict(load_file(file))
        policies.append(chooser.eval())
    return max(policies, key=lambda policy: _mean_reward(valid, policy))


def _mean_reward(evaluator: Evaluator, policy: Policy) -> float:
    return float(np.mean([result.reward for result in evaluator(policy)]))
