"""Your own algorithm: REINFORCE (Williams 1992) in plain torch on the batched environment.

    python agents/examples/reinforce.py --images photos/ --out agent.safetensors

The script makes the environments, plays whole episodes as one batch, carries the memory, keeps
log-probabilities, and reinforces the actions of episodes that did better than others on the same picture.
The sampler can run its output file:
``SkipDiffSampler(...)(lr, policy=load_policy("agent.safetensors"))``.
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium
import numpy as np
import torch

import skipdiff_env  # noqa: F401  (registers the environment)
from skipdiff_env.latent_cache import LatentCache
from skipdiff_env.policies.file import as_seen, save_policy
from skipdiff_env.policies.network import SkipProposalNetwork, SPNConfig


def play(
    envs: gymnasium.vector.VectorEnv, network: SkipProposalNetwork, image: int, noise_seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Play the same picture and noise in every environment, with different actions.

    Returns:
        The rewards (B,), the summed log-probabilities of the actions (B,), and the summed entropy.
    """
    latent, _ = envs.reset(options={"image": image, "noise_seed": noise_seed})
    hidden = network.initial(envs.num_envs)
    log_prob, entropies, done = torch.zeros(envs.num_envs), [], torch.zeros(envs.num_envs, dtype=torch.bool)
    reward = torch.zeros(envs.num_envs)
    while not done.all():
        logits, hidden = network(as_seen(latent, network.config.observation_size), hidden)
        choice = torch.distributions.Categorical(logits=logits)
        actions = choice.sample()
        log_prob = log_prob + choice.log_prob(actions)
        entropies.append(choice.entropy().mean())
        latent, gained, done, _, _ = envs.step(actions)
        reward += gained
    return reward, log_prob, torch.stack(entropies).sum()


def train(
    episodes: int = 200,
    num_envs: int = 16,
    noise_seeds: int = 3,
    config: SPNConfig | None = None,
    learning_rate: float = 1e-3,
    entropy_weight: float = 0.01,
    seed: int = 0,
    **environment: Any,
) -> SkipProposalNetwork:
    """Train a network.

    Args:
        episodes: number of batches of ``num_envs`` episodes, each with one update.
        num_envs: number of episodes played at once, on one picture.
        noise_seeds: number of noise seeds per picture; few, so that the cache pays off.
        config: configuration of the network.
        learning_rate: learning rate of Adam.
        entropy_weight: weight of the entropy bonus, which keeps the policy exploring.
        seed: seed of all random numbers.
        environment: arguments of the environment (model, images, metric, ...).
    """
    envs = gymnasium.make_vec(
        "SkipDiff-v0", num_envs, autoreset_mode="Disabled", tensors=True, crop="center", cache=LatentCache(),
        **environment,
    )  # fmt: skip
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = SkipProposalNetwork(config or SPNConfig(64, 128, "group"))
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    for episode in range(episodes):
        image, noise = int(rng.integers(len(envs.unwrapped.source))), int(rng.integers(noise_seeds))
        reward, log_prob, entropy = play(envs, network, image, noise)
        advantage = (reward - reward.mean()) / (reward.std() + 1e-8)
        loss = -(advantage * log_prob).mean() - entropy_weight * entropy
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if episode % 20 == 19:
            print(
                f"{episode + 1} batches: reward {reward.mean():.4f}, best {reward.max():.4f}, "
                f"entropy {entropy:.2f}"
            )
    envs.close()
    return network.eval()


def main() -> None:
    """Train on pictures and write the agent."""
    parser = argparse.ArgumentParser(description="REINFORCE on SkipDiff's batched environment.")
    parser.add_argument("--model", default="natural-4x")
    parser.add_argument("--images", help="folder or .tar [bundled photographs]")
    parser.add_argument("--metric", default="niqe")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--out", default="agent.safetensors")
    args = parser.parse_args()
    network = train(args.episodes, model=args.model, images=args.images, metric=args.metric)
    print(save_policy(args.out, network))


if __name__ == "__main__":
    main()
