"""Stable-Baselines3 learns on the environment as it comes."""

import numpy as np
import pytest

sb3 = pytest.importorskip("stable_baselines3")


@pytest.mark.parametrize("observation", ["latent", "dict"])
def test_ppo_trains(make, observation):
    env = make(observation=observation, observation_size=8, step_cost=0.1, coarse_steps=2, fine_steps=5)
    policy = {"latent": "MlpPolicy", "dict": "MultiInputPolicy"}[observation]
    # in a Dict, normalize_images=False would put CNNs (36 pixels and more) where float images get flattened
    kwargs = {"net_arch": [16]} | ({"normalize_images": False} if observation == "latent" else {})
    agent = sb3.PPO(
        policy, env, n_steps=24, batch_size=12, n_epochs=1, seed=0, device="cpu", policy_kwargs=kwargs
    )
    before = {name: value.clone() for name, value in agent.policy.named_parameters()}
    agent.learn(48)
    assert any((before[name] != value).any() for name, value in agent.policy.named_parameters())
    seen, _ = env.reset(seed=0)
    action, _ = agent.predict(seen, deterministic=True)
    env.step(action)  # a zero-dimensional array, as predict() gives it


def test_ppo_learns_not_to_waste_evaluations(make, interpolation):
    """With a metric that is always 1, skipping is all there is to learn: 0.5 an evaluation."""
    env = make(
        model=interpolation(), image_size=32, metric=lambda images: np.ones(len(images)), step_cost=0.5,
        coarse_steps=2, fine_steps=5, observation_size=4,
    )  # fmt: skip
    agent = sb3.PPO(
        "MlpPolicy", env, n_steps=64, batch_size=64, n_epochs=8, learning_rate=3e-3, gamma=1.0, seed=0,
        device="cpu", policy_kwargs={"normalize_images": False, "net_arch": [16]},
    )  # fmt: skip
    agent.learn(640)
    taken = []
    for seed in range(5):
        seen, _ = env.reset(seed=seed)
        for _ in range(4):
            action, _ = agent.predict(seen, deterministic=True)
            seen, _, _, _, info = env.step(action)
        taken += info["actions"].tolist()
    assert np.mean(taken) > 0.9
