"""SkipDiff-v0 in Ray RLlib: PPO on the new API stack, where each env runner steps a batch in its own process.

    make test-ray                                       # Ray in its own virtual environment, .venv-ray/
    .venv-ray/bin/python agents/examples/ray_rllib.py --model natural-4x --env-runners 2 --num-envs 8

RLlib 2.60 requires gymnasium 1.2.2 and therefore its own environment; see ray-requirements.txt.
"""

from __future__ import annotations

import argparse
from typing import Any

import ray
import torch
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn

OBJECT_STORE_BYTES = 100 * 2**20
"""Small, since roll-outs are: Ray would take a third of the memory, and containers often have little
/dev/shm."""


class SkipModule(TorchRLModule, ValueFunctionAPI):
    """Actor and critic for latents (B, 3, n, n) of any size; RLlib's own networks expect channels last."""

    def setup(self) -> None:
        """Build the network; RLlib calls it."""
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, 128),
            nn.ReLU(),
        )
        self.actor, self.critic = nn.Linear(128, 2), nn.Linear(128, 1)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        features = self.encoder(batch[Columns.OBS])
        return {Columns.EMBEDDINGS: features, Columns.ACTION_DIST_INPUTS: self.actor(features)}

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        """The critic, (B,)."""
        features = self.encoder(batch[Columns.OBS]) if embeddings is None else embeddings
        return self.critic(features).squeeze(-1)


def build_algorithm(
    env_runners: int, num_envs: int, steps: int, learning_rate: float, seed: int, **environment: Any
) -> PPO:
    """The algorithm.

    Args:
        env_runners: number of processes that play, each with its own model; 0: play in this process.
        num_envs: number of episodes that each of them plays as one batch.
        steps: number of decisions per iteration.
        learning_rate: learning rate of Adam.
        seed: seed of all random numbers.
        environment: arguments of SkipDiff-v0 that can be sent to another process.
    """
    config = (
        PPOConfig()
        .environment("skipdiff_env:SkipDiff-v0", env_config=environment)
        .env_runners(
            num_env_runners=env_runners,
            num_envs_per_env_runner=num_envs,
            num_gpus_per_env_runner=min(1, torch.cuda.device_count() / max(env_runners, 1)),
            sample_timeout_s=None,  # slow models are waited for; after 60 s RLlib would drop what they played
            gym_env_vectorize_mode="vector_entry_point",  # one batched environment, not copies of one
        )
        .training(
            lr=learning_rate,
            gamma=1.0,  # episodes are short, and nearly all reward comes at the end
            entropy_coeff=0.01,
            train_batch_size_per_learner=steps,
            minibatch_size=max(steps // 4, 1),
            num_epochs=4,
        )
        .rl_module(rl_module_spec=RLModuleSpec(module_class=SkipModule))
        .debugging(seed=seed)
    )
    return config.build_algo()


def main() -> None:
    """Train, and print the mean return after each iteration."""
    parser = argparse.ArgumentParser(description="PPO on SkipDiff-v0 in Ray RLlib")
    parser.add_argument("--model", default="natural-4x")
    parser.add_argument("--images", help="folder or .tar [bundled photographs]")
    parser.add_argument("--metric", default="niqe")
    parser.add_argument("--observation-size", type=int, default=64)
    parser.add_argument("--step-cost", type=float, default=0.0)
    parser.add_argument("--env-runners", type=int, default=2)
    parser.add_argument("--num-envs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=288, help="decisions per iteration")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    ray.init(num_cpus=args.env_runners + 1, object_store_memory=OBJECT_STORE_BYTES, include_dashboard=False)
    algorithm = build_algorithm(
        args.env_runners, args.num_envs, args.steps, args.learning_rate, args.seed,
        model=args.model, images=args.images, metric=args.metric, step_cost=args.step_cost,
        observation_size=args.observation_size,
    )  # fmt: skip
    for iteration in range(args.iterations):
        result = algorithm.train()
        mean = result["env_runners"].get("episode_return_mean", float("nan"))  # none: no episode has ended
        decisions = result["env_runners"]["num_env_steps_sampled_lifetime"]
        print(f"iteration {iteration + 1}: {decisions:.0f} decisions, mean return {mean:.4f}", flush=True)
    algorithm.stop()
    ray.shutdown()


if __name__ == "__main__":
    main()
