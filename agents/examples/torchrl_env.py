"""SkipDiff-v0 in TorchRL: ``GymEnv`` knows it by its name (``pip install torchrl``).

python agents/examples/torchrl_env.py --model natural-4x
"""

from __future__ import annotations

import argparse

import skipdiff_env  # noqa: F401  (registers SkipDiff-v0)


def main() -> None:
    """One episode of random actions as a TensorDict."""
    from torchrl.envs import GymEnv, RewardSum, TransformedEnv

    parser = argparse.ArgumentParser(description="SkipDiff-v0 in TorchRL")
    parser.add_argument("--model", default="natural-4x")
    parser.add_argument("--metric", default="niqe")
    args = parser.parse_args()
    env = TransformedEnv(GymEnv("SkipDiff-v0", model=args.model, metric=args.metric), RewardSum())
    env.set_seed(0)
    episode = env.rollout(1000)  # ends with the episode
    print(f"{len(episode)} decisions, return {episode['next', 'episode_reward'][-1].item():.4f}")
    env.close()


if __name__ == "__main__":
    main()
