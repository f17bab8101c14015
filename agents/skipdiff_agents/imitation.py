"""The ceiling: the same network, taught the right answers.

The optimum's walk knows every outcome, so the best reward after either action is known in every state.
A network that regresses their difference is the most that any agent on this observation can be
expected to reach; what it misses cannot be seen in the latents.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from skipdiff_env.diffusion.process import DENOISE, SKIP, SkipRule
from skipdiff_env.oracle import Optimum
from skipdiff_env.policy_file import as_seen
from skipdiff_env.spn import SkipProposalNetwork, SPNConfig

from .evaluate import Evaluator

History = tuple[int, ...]


def after(history: History, level: int, action: int, rule: SkipRule) -> History:
    """The history (see :class:`skipdiff_env.diffusion.SkipState`) that an action at a level leads to."""
    if action == DENOISE:
        return (*history, level)
    return () if rule == "reset" else history


def action_values(
    optimum: Optimum, fine_steps: int, rule: SkipRule
) -> dict[tuple[int, History], tuple[float, float]]:
    """Best reward after denoising and after skipping, in every state.

    Args:
        optimum: all outcomes of an image and a noise seed.
        fine_steps: F.
        rule: what a skip does.

    Returns:
        by (level, history): the two values.
    """
    final: dict[History, float] = {}
    for outcome in optimum.outcomes:
        history: History = ()
        for level, action in zip(range(fine_steps, 1, -1), outcome.actions, strict=True):
            history = after(history, level, action, rule)
        final[history] = outcome.reward
    values: dict[tuple[int, History], tuple[float, float]] = {}

    def best(level: int, history: History) -> float:
        if level == 1:
            return final[history]
        if (level, history) not in values:
            denoise, skip = (best(level - 1, after(history, level, a, rule)) for a in (DENOISE, SKIP))
            values[level, history] = (denoise, skip)
        return max(values[level, history])

    best(fine_steps, ())
    return values


def imitate(
    evaluator: Evaluator,
    config: SPNConfig,
    epochs: int = 30,
    learning_rate: float = 3e-4,
    seed: int = 0,
) -> SkipProposalNetwork:
    """Teach a network the advantage of denoising over skipping in the states of random schedules.

    Args:
        evaluator: its episodes are the training set; with a cache in its setting the walks and the
            schedules cost nothing the second time.
        config: of the network.
        epochs: schedules that are played for each episode.
        learning_rate: of Adam, falling to zero.
        seed: of the weights and the schedules.

    Returns:
        the network, in eval mode. The difference of its logits is the advantage in units of the
        training set's standard deviation.
    """
    process, envs, rng = evaluator.process, evaluator.envs, np.random.default_rng(seed)
    fine = process.fine_steps
    tables = [action_values(optimum, fine, process.skip_rule) for optimum in evaluator.optima()]
    scale = float(np.std([d - s for table in tables for d, s in table.values()])) or 1.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SkipProposalNetwork(config).to(evaluator.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    count = envs.num_envs
    order = np.concatenate([rng.permutation(len(tables)) for _ in range(epochs)])
    batches = np.resize(order, (-(-len(order) // count), count))
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, len(batches))
    for chosen in batches:
        # Between always-skip and always-denoise: with one coin for all, long runs would hardly occur.
        actions = (rng.random((process.decisions, count)) < rng.random(count)).astype(np.int64)
        latents, targets = _play(evaluator, tables, chosen, actions)
        loss = _loss(network, latents, targets / scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return network.eval()


def _play(
    evaluator: Evaluator, tables: Sequence[dict], chosen: np.ndarray, actions: np.ndarray
) -> tuple[list[Tensor], Tensor]:
    """Latents seen on the way, and the advantages (F - 1, B) that belong to them."""
    envs, fine, rule = evaluator.envs, evaluator.process.fine_steps, evaluator.process.skip_rule
    images, seeds = (list(column) for column in zip(*(evaluator.pairs[i] for i in chosen), strict=True))
    latent, _ = envs.reset(options={"image": images, "noise_seed": seeds})
    latents, targets = [], np.empty((fine - 1, len(chosen)))
    histories: list[History] = [()] * len(chosen)
    for i, level in enumerate(range(fine, 1, -1)):
        latents.append(latent)
        for row, table in enumerate(tables[j] for j in chosen):
            denoise, skip = table[level, histories[row]]
            targets[i, row] = denoise - skip
            histories[row] = after(histories[row], level, int(actions[i, row]), rule)
        latent = envs.step(actions[i])[0]
    return latents, torch.from_numpy(targets).float().to(latent.device)


def _loss(network: SkipProposalNetwork, latents: Sequence[Tensor], targets: Tensor) -> Tensor:
    hidden = network.initial(len(latents[0]))
    advantages = []
    for latent in latents:
        logits, hidden = network(as_seen(latent, network.config.observation_size), hidden)
        advantages.append(logits[:, DENOISE] - logits[:, SKIP])
    return torch.nn.functional.mse_loss(torch.stack(advantages), targets)
