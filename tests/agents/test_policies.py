"""Policies of Stable-Baselines3: memory, round trips, the adapter."""

import gymnasium
import numpy as np
import pytest
import torch
import yaml
from gymnasium import spaces

pytest.importorskip("sb3_contrib")
from stable_baselines3.common.vec_env import VecMonitor

from skipdiff_agents.export import network_from_weights
from skipdiff_agents.pairs import all_pairs
from skipdiff_agents.policy import ClockExtractor, SPNExtractor, SPNPolicy
from skipdiff_agents.settings import (
    algorithm_class,
    algorithms,
    build_agent,
    observation_kind,
    read_settings,
)
from skipdiff_agents.vec_env import SkipDiffVecEnv
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.policies.network import SkipProposalNetwork, SPNConfig, state_encoder

SPACES = spaces.Box(-20, 20, (3, 32, 32), np.float32), spaces.Discrete(2)


def small(name, **changes):
    settings = read_settings(name)
    settings["observation_size"] = 16
    settings["policy"]["hidden_size"] = 8
    return settings | changes


def venv(setting, settings, count=3):
    envs = setting.envs(count, observation=observation_kind(settings), observation_size=16)
    return SkipDiffVecEnv(envs, all_pairs(len(setting.source), 2), seed=5)


def test_the_papers_network():
    """Weights, keys and sizes of the paper's agent."""
    network = SkipProposalNetwork(SPNConfig())
    keys = network.state_dict()
    assert {"state_encoder.0.weight", "gru.weight_ih_l0", "actor.0.weight", "critic.0.bias"} <= set(keys)
    assert keys["gru.weight_ih_l0"].shape == (3 * 1536, 1536) and keys["actor.0.weight"].shape == (2, 1536)
    kernels = [tuple(w.shape) for n, w in keys.items() if w.ndim == 4]
    assert kernels == [(32, 3, 9, 9), (24, 32, 5, 5), (24, 24, 5, 5), (24, 24, 5, 5)]
    assert sum(w.ndim == 4 for w in SkipProposalNetwork(SPNConfig(256, 8)).state_dict().values()) == 5


@pytest.mark.parametrize("memory", ["gru", "lstm"])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_policy_save_and_load(tmp_path, memory, norm):
    options = dict(memory=memory, norm=norm, hidden_size=12, ortho_init=False, optimizer_kwargs={"eps": 1e-4})
    policy = SPNPolicy(*SPACES, lambda _: 1e-3, **options, optimizer_class=torch.optim.RMSprop)
    policy.save(tmp_path / "policy.pt")
    loaded = SPNPolicy.load(tmp_path / "policy.pt")
    assert {name: getattr(loaded, name) for name in options} == options | {
        "optimizer_kwargs": loaded.optimizer_kwargs
    }
    assert isinstance(loaded.optimizer, torch.optim.RMSprop) and loaded.optimizer.defaults["eps"] == 1e-4
    seen = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    for a, b in zip(policy.state_dict().values(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    (_, before), (_, after) = policy.predict(seen), loaded.predict(seen)
    np.testing.assert_array_equal(before[0], after[0])


@pytest.mark.parametrize("name", ["recurrent_ppo", "recurrent_ppo_lstm"])
def test_algorithm_save_and_load(tmp_path, setting, name):
    settings = small(name)
    agent = build_agent(settings, venv(setting(), settings), 4)
    agent.save(tmp_path / "agent")
    loaded = algorithm_class(settings["algorithm"]).load(tmp_path / "agent")
    for option in ("memory", "hidden_size", "norm"):
        assert getattr(loaded.policy, option) == settings["policy"][option]
    for a, b in zip(agent.policy.parameters(), loaded.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    assert loaded.gamma == settings["arguments"]["gamma"]
    # every weight is trained: the optimizer was rebuilt with the memory
    trained = {id(p) for group in loaded.policy.optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in loaded.policy.parameters()}


@pytest.mark.parametrize("memory", ["gru", "lstm"])
def test_sequences_equal_steps_with_resets_between(memory):
    """What the update computes from a sequence is what the roll-out computed step by step."""
    policy = SPNPolicy(*SPACES, lambda _: 1e-3, memory=memory, hidden_size=12, norm="group")
    network = network_from_weights(policy.state_dict())
    seen = torch.randn(2, 6, 3, 32, 32)
    starts = torch.tensor([[1.0, 0, 0, 1, 0, 0], [1.0, 0, 0, 0, 0, 1]])
    zeros = torch.zeros(1, 2, 12)
    from sb3_contrib.common.recurrent.type_aliases import RNNStates

    states = RNNStates((zeros, zeros), (zeros, zeros))
    actions = torch.ones(12)
    _, log_prob, _ = policy.evaluate_actions(seen.flatten(0, 1), actions, states, starts.flatten())
    with torch.no_grad():
        hidden = network.initial(2)
        for t in range(6):
            hidden = hidden * (1 - starts[:, t, None])
            logits, hidden = network(seen[:, t], hidden)
            expected = logits.log_softmax(1)[:, 1]
            torch.testing.assert_close(log_prob.reshape(2, 6)[:, t], expected, atol=1e-5, rtol=0)


def test_the_critic_trains_the_memory(setting):
    policy = SPNPolicy(*SPACES, lambda _: 1e-3, hidden_size=12, norm="group")
    zeros = torch.zeros(1, 2, 12)
    from sb3_contrib.common.recurrent.type_aliases import RNNStates

    states = RNNStates((zeros, zeros), (zeros, zeros))
    values, _, _ = policy.evaluate_actions(torch.randn(2, 3, 32, 32), torch.ones(2), states, torch.ones(2))
    values.sum().backward()
    assert policy.lstm_actor.weight_ih_l0.grad.abs().sum() > 0
    assert policy.features_extractor.encoder[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["recurrent_ppo", "ppo"])
def test_adapter(setting, name):
    settings = small(name)
    adapter = venv(setting(), settings)
    env = VecMonitor(adapter)
    seen = env.reset()
    played = []
    for _ in range(3):
        for step in range(4):
            before = seen
            seen, rewards, dones, infos = env.step(np.array([0, 1, 0]))
            assert rewards.dtype == np.float32 and dones.all() == (step == 3) == dones.any()
            latent = seen if isinstance(seen, np.ndarray) else seen["latent"]
            assert latent.shape == (3, 3, 16, 16)
        for row, info in enumerate(infos):
            assert info["actions"].tolist() == [row % 2] * 4 and not info["TimeLimit.truncated"]
            assert info["episode"]["l"] == 4 and info["episode"]["r"] == pytest.approx(rewards[row])
            last = info["terminal_observation"]
            assert isinstance(last, dict) == isinstance(before, dict)
            if isinstance(last, dict):
                assert last["step"] == 4 - 0 and seen["step"][row] == 0
            played.append((info["image"], info["noise_seed"]))
    assert len(set(played[:8])) == 8  # all pairs once before any comes again
    assert env.env_method("close") == [None] * 3 and env.env_is_wrapped(gymnasium.Wrapper) == [False] * 3
    adapter.seed(5)
    adapter.reset()
    assert [(i["image"], i["noise_seed"]) for i in adapter.reset_infos] == played[:3]


def test_settings(tmp_path):
    assert algorithms() == [
        "a2c", "dqn", "paper", "ppo", "ppo_step_cost", "qrdqn", "recurrent_ppo", "recurrent_ppo_lstm", "trpo",
    ]  # fmt: skip
    with pytest.raises(SkipDiffError, match="unknown algorithm 'sac'"):
        read_settings("sac")
    path = tmp_path / "mine.yaml"
    path.write_text("algorithm: PPO\n")
    with pytest.raises(SkipDiffError, match="field 'timesteps' .* is missing"):
        read_settings(str(path))
    path.write_text("algorithm: PPO\nspeed: 3\n")
    with pytest.raises(SkipDiffError, match="unknown field 'speed'"):
        read_settings(str(path))


PLAIN = {"algorithm": "PPO", "timesteps": 64, "num_envs": 4, "observation_size": 16, "arguments": {}}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ("minibatches: 2", "minibatches needs episodes"),
        ("{episodes: 1, minibatches: 0}", "minibatches=0 must be a whole number of at least 1"),
        ("num_envs: 1.5", "num_envs=1.5 must be a whole number"),
        ("observation_size: big", "observation_size='big' must be a whole number"),
        ("observation_size: 192", "observation_size=192 must be 8 times a power of two"),
        ("algorithm: 7", "algorithm=7 must be the name of a class"),
        ("algorithm: [PPO]", r"algorithm=\['PPO'\] must be the name of a class"),
        ("arguments: 5", "arguments=5 must be a table"),
        ("policy: [norm]", r"policy=\['norm'\] must be a table"),
        ("policy: {norm: layer}", "unknown norm 'layer'"),
        ("policy: {hidden_size: 0}", "hidden_size=0 must be a whole number"),
        ("policy: {memory: rnn}", "unknown memory 'rnn'"),
        ("step_cost: 1e-4", "step_cost='1e-4' is text in YAML: write numbers with a point, as in 1.0e-4"),
        ("step_cost: [1e-4, 1.0e-2]", "step_cost.0='1e-4' is text"),
        ("arguments: {learning_rate: 3e-4}", "arguments.learning_rate='3e-4' is text"),
        ("step_cost: cheap", "step_cost='cheap' must be a finite number"),
        ("step_cost: -1", "step_cost=-1 must be a finite number"),
        ("{step_cost: [1, 2], policy: {memory: gru}}", "PPO sees only latents"),
        ("relative_rewards: 1", "relative_rewards=1 must be true or false"),
    ],
)
def test_wrong_settings_are_named_when_they_are_read(tmp_path, changes, match):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(PLAIN | yaml.safe_load(changes)))
    with pytest.raises(SkipDiffError, match=f"mine.yaml: {match}") as caught:
        read_settings(str(path))
    assert "\n" not in str(caught.value)


def test_empty_tables_are_tables_without_options(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(PLAIN | {"arguments": None, "policy": None}))
    assert read_settings(str(path)) == PLAIN | {"policy": {}}


@pytest.mark.parametrize("size", [8, 24, 48, 192, 16.0])
def test_sizes_that_the_convolutions_cannot_halve_are_refused(size):
    with pytest.raises(SkipDiffError, match=f"observation_size={size} must be"):
        state_encoder(size, "group")
    with pytest.raises(SkipDiffError, match=f"observation_size={size} must be"):
        SPNConfig(size)


@pytest.mark.parametrize("size", [48, 192])
def test_latents_of_these_sizes_are_refused(size):
    latent = spaces.Box(-20, 20, (3, size, size), np.float32)
    for make in (
        lambda: SPNExtractor(latent),
        lambda: SPNPolicy(latent, SPACES[1], lambda _: 1e-3),
        lambda: ClockExtractor(spaces.Dict({"latent": latent, "step": spaces.Discrete(5)})),
    ):
        with pytest.raises(SkipDiffError, match=f"observation_size={size} must be 8 times a power of two"):
            make()


def test_observations_of_another_kind_are_refused(setting):
    def space(**arguments):
        return setting().envs(1, observation_size=16, **arguments).single_observation_space

    latent, told, priced = space(), space(observation="dict"), space(observation="dict", step_cost=(0.5, 2.0))
    for make, match in (
        (lambda: SPNPolicy(told, SPACES[1], lambda _: 1e-3), 'with observation="latent"'),
        (lambda: SPNExtractor(told), 'with observation="latent"'),
        (lambda: ClockExtractor(latent), 'with observation="dict"'),
        (lambda: ClockExtractor(spaces.Dict({"step": told["step"]})), 'with observation="dict"'),
        (lambda: ClockExtractor(priced), r"features_extractor_kwargs=\{'step_costs': \(0.5, 2\)\}"),
        (lambda: ClockExtractor(told, step_costs=(0.5, 2.0)), r"with step_cost=\(0.5, 2.0\), or leave out"),
        (lambda: SPNExtractor(spaces.Box(0, 1, (3, 16, 32))), "16x32, not square"),
    ):
        with pytest.raises(SkipDiffError, match=match):
            make()
    assert ClockExtractor(priced, step_costs=(0.5, 2.0)).features_dim == 128


def test_wrong_arguments_are_named(setting):
    settings = small("ppo")
    settings["arguments"]["momentum"] = 1
    with pytest.raises(SkipDiffError, match="momentum"):
        build_agent(settings, venv(setting(), settings), 4)


def test_the_clock_is_heard_beside_the_features():
    """Under ``reset`` a skip shows the same latent at every level: only the clock tells them apart."""
    torch.manual_seed(0)
    network = SkipProposalNetwork(SPNConfig(32, 64, "group", "clock", 10))
    latents = torch.randn(64, 3, 32, 32)
    features = network.state_encoder(latents)
    hidden = network.clock.layers[0]
    with torch.no_grad():
        by_step = torch.stack([network.clock(features[:1], step[None]) for step in torch.eye(10)])
        by_latent = network.clock(features, torch.eye(10)[:1].expand(64, -1))
    assert hidden.in_features == features.shape[1] + 10
    assert by_step.std(dim=0).mean() > 0.3 * by_latent.std(dim=0).mean()
