"""Agents that SB3 trained, in the sampler's hands; what plain SB3 saved, and a run's best agent, exported."""

import gymnasium
import numpy as np
import pytest
import torch

pytest.importorskip("sb3_contrib")
from sb3_contrib import QRDQN, RecurrentPPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from skipdiff_agents import EpisodicPPO, SPNPolicy, as_policy
from skipdiff_agents.cli import main
from skipdiff_agents.export import network_from_file, purpose_of
from skipdiff_agents.policy import ClockExtractor
from skipdiff_env import SkipDiffError, SkipDiffSampler
from skipdiff_env.diffusion import random_model, tiny_config
from skipdiff_env.policies.file import NetworkPolicy, load_policy, save_policy
from skipdiff_env.policies.network import SkipProposalNetwork, SPNConfig
from skipdiff_env.policies.purpose import Purpose

FINE = 5


@pytest.fixture(scope="module")
def model():
    return random_model(tiny_config(image_size=32))


@pytest.fixture(scope="module")
def make(model):
    """A scalar environment of 16-pixel latents; infos tell what was decided."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(2)]

    def make(keys=None, **arguments):
        arguments = {"model": model, "images": images, "metric": "psnr", "fine_steps": FINE, "crop": "center",
                     "observation_size": 16} | arguments  # fmt: skip
        env = gymnasium.make("SkipDiff-v0", **arguments)
        return gymnasium.wrappers.FilterObservation(env, keys) if keys else env

    return make


CLOCK = {
    "features_extractor_class": ClockExtractor, "features_extractor_kwargs": {"hidden_size": 8},
    "net_arch": [], "normalize_images": False,
}  # fmt: skip
GRU = {"hidden_size": 8, "norm": "group"}
STEPS = {"n_steps": 4 * FINE - 4, "batch_size": 8, "device": "cpu", "seed": 0}


def agents(make):
    """By name: an agent after a few steps, and the environment that it sees."""
    latents, told = make(), make(observation="dict")
    plain = make(["latent", "step"], observation="dict")
    return {
        "README's PPO": (PPO("MultiInputPolicy", plain, **STEPS), plain),
        "PPO with a clock": (PPO("MultiInputPolicy", told, policy_kwargs=CLOCK, **STEPS), told),
        "PPO on latents": (PPO("MlpPolicy", latents, **STEPS), latents),
        "DQN": (DQN("MultiInputPolicy", plain, buffer_size=50, device="cpu", seed=0), plain),
        "RecurrentPPO": (RecurrentPPO(SPNPolicy, latents, policy_kwargs=GRU, **STEPS), latents),
        "EpisodicPPO": (EpisodicPPO(SPNPolicy, latents, policy_kwargs=GRU, **STEPS), latents),
    }


@pytest.mark.parametrize(
    "name", ["README's PPO", "PPO with a clock", "PPO on latents", "DQN", "RecurrentPPO", "EpisodicPPO"]
)
def test_an_agent_decides_for_the_sampler_as_in_the_environment(make, model, name):
    agent, env = agents(make)[name]
    agent.learn(32)
    sampler = SkipDiffSampler(model, fine_steps=FINE)
    for image in range(2):
        seen, info = env.reset(options={"image": image, "noise_seed": 3})
        state, start, done = None, True, False
        while not done:
            action, state = agent.predict(seen, state, np.array([start]), deterministic=True)
            seen, _, done, _, info = env.step(int(action))
            start = False
        lr = env.unwrapped._episodes.pairs[0].lr
        out = sampler(lr, policy=as_policy(agent), seed=3)
        assert list(out.trace[0].actions) == info["actions"].tolist()


def test_a_drawn_action_is_not_always_the_same(make):
    agent = agents(make)["EpisodicPPO"][0]
    policy = as_policy(agent, deterministic=False)
    chosen, _ = policy(torch.zeros(200, 3, 16, 16), None)
    assert 0 < chosen.sum() < 200


def test_records_tell_agents_apart(make):
    agent = agents(make)["EpisodicPPO"][0]
    before = as_policy(agent).settings
    assert before == as_policy(agent).settings and before["policy"] == "EpisodicPPO"
    agent.learn(32)
    assert as_policy(agent).settings != before


def test_what_a_sampler_cannot_ask_is_said(make):
    told = make(observation="dict")
    with pytest.raises(SkipDiffError, match="sees 'lr', which a sampler does not show its policies"):
        as_policy(PPO("MultiInputPolicy", told, **STEPS))
    flat = gymnasium.wrappers.FlattenObservation(make())
    with pytest.raises(SkipDiffError, match="not a square latent"):
        as_policy(PPO("MlpPolicy", flat, **STEPS))
    with pytest.raises(SkipDiffError, match=r"not Discrete\(2\)"):
        as_policy(_with_three_actions(make))
    scaled = VecNormalize(DummyVecEnv([make]))
    with pytest.raises(SkipDiffError, match="VecNormalize"):
        as_policy(PPO("MlpPolicy", scaled, **STEPS))
    with pytest.raises(SkipDiffError, match="not trained with prices"):
        as_policy(PPO("MlpPolicy", make(), **STEPS), step_cost=0.1)
    priced = {**CLOCK, "features_extractor_kwargs": {"hidden_size": 8, "step_costs": (0.01, 0.1)}}
    dear = make(observation="dict", step_cost=(0.01, 0.1))
    for price in (-1, float("nan"), float("inf")):
        with pytest.raises(SkipDiffError, match=f"step_cost={price} must be a finite number, 0 or more"):
            as_policy(PPO("MultiInputPolicy", dear, policy_kwargs=priced, **STEPS), step_cost=price)
    clock = as_policy(PPO("MultiInputPolicy", told, policy_kwargs=CLOCK, **STEPS))
    for other in (FINE - 1, FINE + 1):
        with pytest.raises(SkipDiffError, match=f"trained for F = {FINE}: use fine_steps={FINE}"):
            SkipDiffSampler(random_model(), fine_steps=other)(np.zeros((8, 8, 3), np.uint8), policy=clock)


def _with_three_actions(make):
    env = make()
    env.action_space = gymnasium.spaces.Discrete(3)
    return PPO("MlpPolicy", env, **STEPS)


@pytest.mark.parametrize("name", ["PPO with a clock", "RecurrentPPO", "EpisodicPPO"])
@pytest.mark.parametrize("format", ["safetensors", "torch-export"])
def test_what_plain_sb3_saved_is_exported(make, tmp_path, name, format):
    agent = agents(make)[name][0]
    agent.save(tmp_path / "agent.zip")
    out = tmp_path / "exported"
    assert main(["export", str(tmp_path / "agent.zip"), "--format", format, "-o", str(out)]) == 0
    (file,) = tmp_path.glob("exported.*")
    wrapped, exported = as_policy(agent), load_policy(file)
    memory, other = None, None
    latents = torch.randn(FINE - 1, 6, 3, 16, 16)
    for latent in latents:
        a, memory = wrapped(latent, memory)
        b, other = exported(latent, other)
        np.testing.assert_array_equal(a, b.numpy())


def test_only_a_run_s_own_checkpoint_has_its_purpose(make, tmp_path):
    purpose = Purpose("m", "h", 10, FINE, "reset", "psnr", "PPO", 0)
    network = SkipProposalNetwork(SPNConfig(16, 8, "group"))
    save_policy(tmp_path / "policy.safetensors", network, purpose=purpose)
    for name in ("checkpoint.zip", "other.zip"):
        (tmp_path / name).write_bytes(b"")
    assert purpose_of(tmp_path) == purpose_of(tmp_path / "policy.safetensors") == purpose
    assert purpose_of(tmp_path / "checkpoint.zip") is None, "this is no run's folder"
    (tmp_path / "run.json").write_text("{}")
    assert purpose_of(tmp_path / "checkpoint.zip") == purpose and purpose_of(tmp_path / "other.zip") is None


def test_options_of_the_optimiser_may_be_given(make):
    policy = {**GRU, "optimizer_kwargs": {"fused": False}}
    agent = EpisodicPPO(SPNPolicy, DummyVecEnv([make]), policy_kwargs=policy, **STEPS)
    assert agent.policy.optimizer.defaults["fused"] is False


@pytest.mark.parametrize("layers", [[8], None])
@pytest.mark.parametrize("kind", [PPO, DQN, QRDQN])
def test_layers_between_extractor_and_head_are_refused(make, tmp_path, capsys, kind, layers):
    """With None, those of SB3's default."""
    options = CLOCK | {"net_arch": layers}
    own = STEPS if kind is PPO else {"buffer_size": 50, "device": "cpu"}
    agent = kind("MultiInputPolicy", make(observation="dict"), policy_kwargs=options, **own)
    agent.save(tmp_path / "agent.zip")
    assert main(["export", str(tmp_path / "agent.zip"), "-o", str(tmp_path / "a.safetensors")]) == 2
    error = capsys.readouterr().err
    assert "holds a policy of another kind" in error and "net_arch=[]" in error


@pytest.mark.parametrize("kind", [DQN, QRDQN])
def test_agents_that_learn_values_are_exported(make, tmp_path, kind):
    options = {"buffer_size": 50, "device": "cpu", "seed": 0}
    agent = kind("MultiInputPolicy", make(observation="dict"), policy_kwargs=CLOCK, **options)
    agent.save(tmp_path / "agent.zip")
    network = network_from_file(tmp_path / "agent.zip")
    exported, latents = NetworkPolicy(network, network.config), torch.randn(6, 3, 16, 16)
    np.testing.assert_array_equal(exported(latents, None)[0].numpy(), as_policy(agent)(latents, None)[0])


@pytest.mark.parametrize("format", ["safetensors", "onnx", "torch-export"])
def test_the_best_agent_of_a_run_is_exported(tmp_path, format):
    """The folder and its policy.safetensors mean the agent that was evaluated, not the last checkpoint."""
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    network = SkipProposalNetwork(SPNConfig(32, 16, "group")).eval()
    save_policy(tmp_path / "run" / "policy.safetensors", network)
    expected = NetworkPolicy(network, network.config)
    for number, given in enumerate(("run", "run/policy.safetensors")):
        out = tmp_path / f"agent{number}"
        assert main(["export", str(tmp_path / given), "--format", format, "-o", str(out)]) == 0
        (file,) = tmp_path.glob(f"agent{number}.*")
        memory, other = None, None
        for latent in torch.randn(3, 4, 3, 32, 32):
            a, memory = expected.logits(latent, memory)
            b, other = load_policy(file).logits(latent, other)
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    if format != "safetensors":
        with pytest.raises(SkipDiffError, match="is a graph, which can only be run"):
            network_from_file(file)
