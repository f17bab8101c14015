"""Imitation of the optimum: networks that are trained on the right answers, as a reference for agents.

The search for the optimum gives every outcome, so there is no need to explore. What remains is to learn to
recognise the right answer in the latents, on pictures outside the training set. The result is not an upper
bound: another network, more pictures or better training may do better, and so may an agent.

Under ``reset`` only the last skip counts, so :func:`regress_starts` learns to predict the reward of each
start from x_S1 alone, the latent at the end of CSA. Its network, which is not that of agents, decides once;
an agent decides at every level. :func:`imitate` works under either rule, with the network of agents. In every
state it learns by how much one action is better than the other. Most of these differences are zero (a later
skip can undo an early denoising step), which makes them harder to learn. Neither method is always better.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skipdiff_env.diffusion.process import DENOISE, SKIP, History, SkipRule, history_after
from skipdiff_env.oracle import Optimum
from skipdiff_env.policies.file import NetworkPolicy, as_seen
from skipdiff_env.policies.network import FEATURES, SkipProposalNetwork, SPNConfig, state_encoder

from .evaluate import Evaluator, fixed_starts


def action_values(
    optimum: Optimum, fine_steps: int, rule: SkipRule
) -> dict[tuple[int, History], tuple[float, float]]:
    """Return the best reward after denoising and after skipping, in every state.

    Args:
        optimum: all outcomes of an image and a noise seed.
        fine_steps: F.
        rule: what a skip does.

    Returns:
        The two values, by (level, history).
    """
    final: dict[History, float] = {}
    for outcome in optimum.outcomes:
        history: History = ()
        for level, action in zip(range(fine_steps, 1, -1), outcome.actions, strict=True):
            history = history_after(history, level, action, rule)
        final[history] = outcome.reward
    values: dict[tuple[int, History], tuple[float, float]] = {}

    def best(level: int, history: History) -> float:
        if level == 1:
            return final[history]
        if (level, history) not in values:
            denoise, skip = (best(level - 1, history_after(history, level, a, rule)) for a in (DENOISE, SKIP))
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
    validation: Evaluator | None = None,
) -> SkipProposalNetwork:
    """Train a network to predict the advantage of denoising over skipping in the states of random schedules.

    Args:
        evaluator: evaluator of the training episodes. If its setting has a cache, the search and the
            schedules cost nothing the second time.
        config: configuration of the network.
        epochs: number of schedules that are played for each episode.
        learning_rate: initial learning rate of Adam, which falls linearly to 1 % of this value.
        seed: seed of the weights and the schedules.
        validation: evaluator of other episodes, if any; the network of the best epoch on them is kept.

    Returns:
        The network, in eval mode. The difference of its logits is the advantage, in units of the standard
        deviation of advantages in the training set.
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
    best, kept = -math.inf, None
    for number, chosen in enumerate(batches):
        # Each schedule has its own probability of a skip; with a common one, long runs would hardly occur.
        actions = (rng.random((process.decisions, count)) < rng.random(count)).astype(np.int64)
        latents, targets = _play(evaluator, tables, chosen, actions)
        loss = _loss(network, latents, targets / scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        if validation and (number + 1) % max(len(batches) // epochs, 1) == 0:
            played = validation(NetworkPolicy(network.eval(), config))
            network.to(evaluator.device).train()
            if (reward := float(np.mean([result.reward for result in played]))) > best:
                best, kept = reward, copy.deepcopy(network.state_dict())
    if kept:
        network.load_state_dict(kept)
    return network.cpu().eval()


def _play(
    evaluator: Evaluator, tables: Sequence[dict], chosen: np.ndarray, actions: np.ndarray
) -> tuple[list[Tensor], Tensor]:
    """Play schedules; return the latents seen, and their advantages (F - 1, B)."""
    envs, fine, rule = evaluator.envs, evaluator.process.fine_steps, evaluator.process.skip_rule
    images, seeds = (list(column) for column in zip(*(evaluator.pairs[i] for i in chosen), strict=True))
    latent, _ = envs.reset(options={"image": images, "noise_seed": seeds})
    latents, targets = [], np.empty((fine - 1, len(chosen)))
    histories: list[History] = [()] * len(chosen)
    for i, level in enumerate(range(fine, 1, -1)):
        latents.append(latent.to(evaluator.device))
        for row, table in enumerate(tables[j] for j in chosen):
            denoise, skip = table[level, histories[row]]
            targets[i, row] = denoise - skip
            histories[row] = history_after(histories[row], level, int(actions[i, row]), rule)
        latent = envs.step(actions[i])[0]
    return latents, torch.from_numpy(targets).float().to(evaluator.device)


def _loss(network: SkipProposalNetwork, latents: Sequence[Tensor], targets: Tensor) -> Tensor:
    hidden = network.initial(len(latents[0]))
    advantages = []
    for latent in latents:
        logits, hidden = network(as_seen(latent, network.config.observation_size), hidden)
        advantages.append(logits[:, DENOISE] - logits[:, SKIP])
    return nn.functional.mse_loss(torch.stack(advantages), targets)


class StartChooser(nn.Module):
    """A policy that predicts the reward of each start from x_S1, and follows the best one.

    Args:
        size: side in pixels of the latents that it sees.
        fine_steps: F.
        hidden_size: width of the hidden layer.
    """

    def __init__(self, size: int, fine_steps: int, hidden_size: int = 128) -> None:
        super().__init__()
        self.size, self.fine_steps = size, fine_steps
        head = (nn.Linear(FEATURES, hidden_size), nn.ReLU(), nn.Linear(hidden_size, fine_steps))
        self.layers = nn.Sequential(state_encoder(size, "group"), *head)

    @torch.no_grad()
    def forward(self, latent: Tensor, memory: Any) -> tuple[np.ndarray, Any]:
        """See :class:`skipdiff_env.policies.Policy`."""
        if memory is None:
            memory = 0, self.layers(as_seen(latent, self.size)).argmax(dim=1).cpu().numpy() + 1
        taken, start = memory
        return (self.fine_steps - taken > start).astype(np.int64), (taken + 1, start)


def regress_starts(
    training: Evaluator,
    validation: Evaluator,
    size: int,
    epochs: int = 100,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> StartChooser:
    """Train a network to predict the reward of every start, relative to the episode's mean.

    Args:
        training: evaluator of the training episodes, which are mirrored at random.
        validation: evaluator of other episodes; the network of the epoch that chooses best on them is kept.
        size: side in pixels of the latents that the network sees.
        epochs: number of times that each episode is seen.
        learning_rate: initial learning rate of AdamW, which falls linearly to 1 % of this value.
        seed: seed of weights, order and mirroring.
    """
    fine = training.process.fine_steps
    (seen, rewards), (seen_valid, rewards_valid) = (
        (_first_latents(part, size), fixed_starts(part.optima(), fine)) for part in (training, validation)
    )
    targets = torch.from_numpy(rewards - rewards.mean(axis=1, keepdims=True)).float()
    targets /= targets.std() + 1e-12
    seen, seen_valid, targets = (part.to(training.device) for part in (seen, seen_valid, targets))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = StartChooser(size, fine).to(training.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.05)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, epochs)
    rng, best, kept = np.random.default_rng(seed), -math.inf, network.state_dict()
    for _ in range(epochs):
        for chosen in np.array_split(rng.permutation(len(seen)), -(-len(seen) // 32)):
            batch = seen[chosen]
            batch = batch.flip([axis for axis in (2, 3) if rng.random() < 0.5])
            loss = nn.functional.mse_loss(network.layers(batch), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        decay.step()
        with torch.no_grad():
            choice = network.layers(seen_valid).argmax(dim=1).cpu().numpy()
        reward = float(rewards_valid[np.arange(len(choice)), choice].mean())
        if reward > best:
            best, kept = reward, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)
    return network.cpu().eval()


def _first_latents(evaluator: Evaluator, size: int) -> Tensor:
    """Return x_S1 of every episode as agents see it, (episodes, 3, size, size)."""
    count, seen = evaluator.envs.num_envs, []
    for first in range(0, len(evaluator.pairs), count):
        chunk = evaluator.pairs[first : first + count]
        images, seeds = zip(*(chunk + [chunk[-1]] * (count - len(chunk))), strict=True)
        latent, _ = evaluator.envs.reset(options={"image": list(images), "noise_seed": list(seeds)})
        seen.append(as_seen(latent, size)[: len(chunk)].cpu())
    return torch.cat(seen)
