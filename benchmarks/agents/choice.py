"""Chooses an agent by validation episodes alone, and decides whether it is good enough to ship."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from skipdiff_agents.export import network_from_file
from skipdiff_agents.settings import BEST
from skipdiff_env.diffusion.folder import ABOUT_POLICY, POLICY
from skipdiff_env.diffusion.pretrained import model_folder
from skipdiff_env.files import write_atomically
from skipdiff_env.policies import Policy
from skipdiff_env.policies.file import load_policy, save_policy

from .study import Study, say

TOLERANCE = 0.01
"""Maximum share of the best start's reward by which an agent that ships may be worse."""


@dataclass(frozen=True)
class Trained:
    """The result of training an algorithm with one seed."""

    folder: Path
    minutes: float
    reward: float
    """Mean reward of the kept agent on the validation episodes, before prices."""
    evaluations: float
    """Mean number of network evaluations per validation episode."""
    decisions: int = 0
    """Number of decisions that it learned from; 0 if the algorithm samples none."""


@dataclass(frozen=True)
class Chosen:
    """The agent with the fewest evaluations among those that validation cannot tell from the best."""

    algorithm: str
    seed: int
    file: Path
    reward: float
    ahead: tuple[float, float, float]
    """Paired difference to the best start on validation episodes, in units of that start's reward: mean and
    95 % interval."""

    @property
    def row(self) -> str:
        """The name of its row in the tables."""
        return f"chosen on validation ({self.algorithm}, seed {self.seed})"

    @property
    def ships(self) -> bool:
        """Whether the lower bound is at least −1 %."""
        return self.ahead[1] >= -TOLERANCE


def choose(study: Study, trained: Mapping[str, Sequence[Trained]], start: int) -> Chosen:
    """Choose the agent with the fewest evaluations among those within one standard error, over images, of the
    highest validation reward. Test episodes have no influence."""
    evaluator, images = study.evaluator("valid"), study.photographs("valid")

    def rewards(policy: int | Policy) -> np.ndarray:
        return np.array([r.reward for r in evaluator(policy)]).reshape(images, -1)

    runs = {(name, seed): run for name, some in trained.items() for seed, run in enumerate(some)}
    own = {key: rewards(load_policy(run.folder / BEST)) for key, run in runs.items()}
    best = max(own, key=lambda key: own[key].mean())
    able = [key for key in own if not _behind(own[best], own[key])]
    name, seed = min(able, key=lambda key: (runs[key].evaluations, -own[key].mean()))
    run = runs[name, seed]
    difference = study.scale.difference(own[name, seed][None], rewards(start)[None])
    return Chosen(name, seed, run.folder / BEST, run.reward, difference)


def _behind(best: np.ndarray, own: np.ndarray) -> bool:
    """Return whether rewards (images, noise seeds) are below the best ones by more than a standard error."""
    lost = (best - own).mean(axis=1)
    error = lost.std(ddof=1) / np.sqrt(len(lost)) if len(lost) > 1 else 0.0
    return bool(lost.mean() > error)


def same_agent(trained: Path, shipped: Path) -> bool:
    """Return whether a shipped file holds a trained agent, with its weights rounded to float16."""
    ours, theirs = (network_from_file(file) for file in (trained, shipped))
    weights = theirs.state_dict()
    return ours.config == theirs.config and all(
        torch.equal(weight.half(), weights[name].half()) for name, weight in ours.state_dict().items()
    )


def ship(study: Study, chosen: Chosen) -> bool:
    """Copy the agent to the model's folder, in float16, if it is good enough; return whether it was.

    The weights are written first: if ``policy.json`` names other weights, the folder counts as one without an
    agent.
    """
    shown = "{:+.2%} [{:+.2%}, {:+.2%}]".format(*chosen.ahead)
    if not chosen.ships:
        say(
            f"not shipped: {chosen.algorithm}, seed {chosen.seed}: on validation {shown} against the best "
            f"start, and the lower bound must be at least {-TOLERANCE:.0%}"
        )
        return False
    process, target = study.training.process, model_folder(study.args.model)
    purpose = study.training.purpose(chosen.algorithm, chosen.seed)
    weights = save_policy(target / POLICY, network_from_file(chosen.file), half=True, purpose=purpose)
    about = {
        "model": study.model.hash,
        "steps": [process.coarse_steps, process.fine_steps],
        "skip_rule": study.training.skip_rule,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "algorithm": chosen.algorithm,
        "training_seed": chosen.seed,
        "metric": study.args.metric,
        "input": "mixed" if study.args.mixed else "clean",
        "validation_reward": chosen.reward,
        "validation_difference": list(chosen.ahead),
    }
    write_atomically(target / ABOUT_POLICY, (json.dumps(about, indent=2) + "\n").encode())
    say(f"shipped: {chosen.algorithm}, seed {chosen.seed}, on validation {shown} → {weights}")
    return True
