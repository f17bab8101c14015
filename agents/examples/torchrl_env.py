"""SkipDiff-v0 in TorchRL, alone or as a batch (``pip install torchrl``).

python agents/examples/torchrl_env.py --model natural-4x --num-envs 4
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium

import skipdiff_env  # noqa: F401  (registers SkipDiff-v0)


def make_env(num_envs: int, **arguments: Any) -> Any:
    """Make one environment by ``GymEnv``, or wrap a batch and read its infos: ``GymEnv(num_envs=...)`` would
    play each episode in its own process and lose the infos of the last steps."""
    from torchrl.envs import GymEnv, GymWrapper

    if num_envs == 1:
        return GymEnv("SkipDiff-v0", **arguments)
    batch = gymnasium.make_vec("SkipDiff-v0", num_envs, autoreset_mode="Disabled", **arguments)
    return GymWrapper(batch).auto_register_info_dict()


def main() -> None:
    """Play one episode of random actions, or one in each copy; return a TensorDict."""
    from torchrl.envs import RewardSum, TransformedEnv

    parser = argparse.ArgumentParser(description="SkipDiff-v0 in TorchRL")
    parser.add_argument("--model", default="natural-4x")
    parser.add_argument("--metric", default="niqe")
    parser.add_argument("--num-envs", type=int, default=1)
    args = parser.parse_args()
    env = TransformedEnv(make_env(args.num_envs, model=args.model, metric=args.metric), RewardSum())
    env.set_seed(0)
    episode = env.rollout(1000)  # ends with the episode
    returns = episode["next", "episode_reward"][..., -1, 0]
    print(f"{episode.shape[-1]} decisions, return {returns.mean().item():.4f}")
    env.close()


if __name__ == "__main__":
    main()
