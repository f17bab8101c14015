"""SkipDiff-v0 in worker processes: ``gymnasium.vector.AsyncVectorEnv``.

    python agents/examples/async_vector_env.py --model natural-4x --num-envs 4

Each worker loads its own model. ``gymnasium.make_vec("SkipDiff-v0", num_envs=4)`` shares one model
and steps all episodes as one batch, which is faster on one machine. Use workers for metrics or models
that hold the interpreter, and for code that expects worker processes.
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv

import skipdiff_env  # noqa: F401  (registers SkipDiff-v0)


def make_env(**arguments: Any) -> gymnasium.Env:
    """Make one environment, in its worker, so that nothing large is sent there."""
    torch.set_num_threads(1)  # more threads would compete for the cores
    return gymnasium.make("SkipDiff-v0", **arguments)


def make_workers(num_envs: int, **arguments: Any) -> AsyncVectorEnv:
    """Start ``num_envs`` workers by "spawn", since a process in which torch has run threads must not be
    forked."""
    thunks = [lambda: make_env(**arguments) for _ in range(num_envs)]
    return AsyncVectorEnv(thunks, context="spawn")


def random_episodes(envs: AsyncVectorEnv, steps: int, seed: int = 0) -> list[float]:
    """Act at random for ``steps`` steps; return the reward of each episode that ended."""
    envs.reset(seed=seed)
    envs.action_space.seed(seed)
    rewards: list[float] = []
    for _ in range(steps):
        _, reward, terminated, _, _ = envs.step(envs.action_space.sample())
        rewards += np.asarray(reward)[terminated].tolist()
    return rewards


def main() -> None:
    """Print the mean reward of random agents."""
    parser = argparse.ArgumentParser(description="SkipDiff-v0 in worker processes")
    parser.add_argument("--model", default="natural-4x")
    parser.add_argument("--metric", default="niqe")
    parser.add_argument("--num-envs", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    envs = make_workers(args.num_envs, model=args.model, metric=args.metric)
    try:
        rewards = random_episodes(envs, args.steps)
    finally:
        envs.close()
    print(f"{len(rewards)} episodes, mean reward {np.mean(rewards) if rewards else float('nan'):.4f}")


if __name__ == "__main__":
    main()
