"""Teaches networks directly from recordings, for comparison with agents that explore; keeps each network."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save

from skipdiff_agents.evaluate import Evaluator
from skipdiff_agents.exact import train_exactly
from skipdiff_agents.imitation import StartChooser, imitate, regress_starts
from skipdiff_agents.settings import BEST
from skipdiff_env.files import write_atomically
from skipdiff_env.policies.base import Policy
from skipdiff_env.policies.file import load_policy, save_policy
from skipdiff_env.policies.network import SPNConfig

from .choice import Trained
from .study import Study, say

STARTS, SECONDS = "starts.safetensors", "seconds.json"
EXACT = "exact_gradient"
"""The name of an agent of :mod:`skipdiff_agents.exact` for ``--algos`` and in the tables."""


def exact_gradient(study: Study, epochs: int, seed: int) -> Trained:
    """Train an agent by the exact policy gradient, see :func:`skipdiff_agents.exact.train_exactly`.

    Args:
        study: the study whose episodes are used.
        epochs: number of times that each training episode is shown.
        seed: seed of the weights and the order of episodes.
    """
    size, fine = study.args.size, study.training.process.fine_steps
    folder = study.runs / f"{EXACT}-{size}-{epochs}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / SECONDS).is_file():
        say(f"training {EXACT}, seed {seed}")
        began = time.perf_counter()
        config = SPNConfig(size, 128, "group", "clock", fine)
        train, valid = study.evaluator("train"), study.evaluator("valid")
        network = train_exactly(train, valid, config, epochs, seed=seed, device=study.device)
        save_policy(folder / BEST, network, purpose=study.training.purpose(EXACT, seed))
        write_atomically(folder / SECONDS, json.dumps(time.perf_counter() - began).encode())
    minutes = json.loads((folder / SECONDS).read_text(encoding="utf-8")) / 60
    return Trained(folder, minutes, *held_out(study, folder))


def imitation(study: Study, epochs: int, seed: int) -> Policy:
    """Teach networks on the training episodes; return the one that is best on validation.

    Under ``reset`` the two are :func:`skipdiff_agents.imitation.imitate`, which decides at every level
    as agents do, and ``regress_starts``, which decides once. Under ``hold`` there is only the first.

    Args:
        study: the study whose episodes are used.
        epochs: number of times that each training episode is shown.
        seed: seed of the weights and the order of episodes.
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


def held_out(study: Study, folder: Path) -> tuple[float, float]:
    """Return mean reward, before prices, and evaluations of a folder's agent on the validation episodes."""
    played = study.evaluator("valid")(load_policy(folder / BEST))
    return float(np.mean([r.reward for r in played])), float(np.mean([r.evaluations for r in played]))


def _mean_reward(evaluator: Evaluator, policy: Policy) -> float:
    return float(np.mean([result.reward for result in evaluator(policy)]))
