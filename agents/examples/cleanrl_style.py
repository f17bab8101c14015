"""SkipDiff-v0 made as in CleanRL's scripts: ``SyncVectorEnv`` over thunks.

    python agents/examples/cleanrl_style.py --model natural-4x --num-envs 4

In a script of CleanRL, replace ``make_env`` with the function below. The rest stays as it is, except for
the network, which must take observations of shape (3, H, W).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

import skipdiff_env  # noqa: F401  (registers SkipDiff-v0)


def make_env(
    env_id: str, idx: int, capture_video: bool, run_name: str, **arguments: Any
) -> Callable[[], gym.Env]:
    """The thunk of CleanRL's PPO, which records videos of the first environment if ``capture_video`` is
    set."""

    def thunk() -> gym.Env:
        if capture_video and idx == 0:
            env = gym.make(env_id, render_mode="rgb_array", **arguments)
            env = gym.wrappers.RecordVideo(env, f"videos/{run_name}")
        else:
            env = gym.make(env_id, **arguments)
        return gym.wrappers.RecordEpisodeStatistics(env)

    return thunk


def main() -> None:
    """Run one roll-out of random actions, as in CleanRL's loop."""
    parser = argparse.ArgumentParser(description="SkipDiff-v0 in CleanRL's style")
    parser.add_argument("--model", default="natural-4x")
    parser.add_argument("--metric", default="niqe")
    parser.add_argument("--num-envs", type=int, default=2)
    parser.add_argument("--num-steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    envs = gym.vector.SyncVectorEnv(
        [
            make_env("SkipDiff-v0", i, False, "random", model=args.model, metric=args.metric)
            for i in range(args.num_envs)
        ]
    )
    assert isinstance(envs.single_action_space, gym.spaces.Discrete)
    envs.reset(seed=args.seed)
    envs.action_space.seed(args.seed)
    for step in range(args.num_steps):
        _, _, _, _, infos = envs.step(envs.action_space.sample())
        if "episode" in infos:
            ended = infos["_episode"]
            episodic_return = np.mean(infos["episode"]["r"][ended])
            print(f"global_step={(step + 1) * args.num_envs}, episodic_return={episodic_return:.4f}")
    envs.close()


if __name__ == "__main__":
    main()
