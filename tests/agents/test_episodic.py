"""Recurrent PPO on whole episodes: the same memory, loss and update as sb3-contrib's, without the padding."""

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces

pytest.importorskip("sb3_contrib")
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.vec_env import VecMonitor
from torch.nn import functional as F

from skipdiff_agents.episodic import EpisodicPPO
from skipdiff_agents.pairs import all_pairs
from skipdiff_agents.policy import ClockExtractor, SPNExtractor, SPNPolicy, encode
from skipdiff_agents.sequence import GRUSequence, Seen, distinct
from skipdiff_agents.vec_env import SkipDiffVecEnv
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.latent_cache import LatentCache

DECISIONS, ENVS = 4, 6


@pytest.fixture
def venv(setting):
    def make(count=ENVS, **others):
        envs = setting(cache=LatentCache()).envs(count, observation_size=16, **others)
        return VecMonitor(SkipDiffVecEnv(envs, all_pairs(4, 3), seed=1))

    return make


def agent(kind, env, *, memory="gru", norm="group", **changes):
    arguments = {
        "n_steps": 2 * DECISIONS, "batch_size": 4 * DECISIONS, "n_epochs": 2, "gamma": 1.0, "gae_lambda": 1.0,
        "ent_coef": 0.05, "seed": 0, "device": "cpu",
    }  # fmt: skip
    options = {"memory": memory, "hidden_size": 12, "norm": norm}
    return kind(SPNPolicy, env, policy_kwargs=options, **arguments | changes)


def test_the_sequence_is_torchs_gru():
    """Values, and the gradients of inputs, first memory and all four weights, in float64."""
    torch.manual_seed(0)
    memory = torch.nn.GRU(7, 5).double()
    seen = torch.randn(6, 3, 7, dtype=torch.float64, requires_grad=True)
    hidden = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    expected, _ = memory(seen, hidden[None])
    gates = F.linear(seen, memory.weight_ih_l0, memory.bias_ih_l0)
    found = GRUSequence.apply(gates, hidden, memory.weight_hh_l0, memory.bias_hh_l0)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    into = torch.randn_like(expected)
    wanted = (seen, hidden, *memory.parameters())
    for a, b in zip(
        torch.autograd.grad(found, wanted, into), torch.autograd.grad(expected, wanted, into), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=0)


def test_latents_that_come_again_are_one():
    some = torch.randn(3, 3, 16, 16)
    rows = torch.tensor([0, 1, 0, 2, 2, 0])
    chosen, numbers = distinct(some[rows])
    assert numbers.tolist() == rows.tolist() and torch.equal(chosen, some)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_the_encoder_sees_them_once_and_says_the_same(norm):
    """Batch norm counts a latent as often as it comes, so there all of them pass."""
    torch.manual_seed(0)
    space = spaces.Box(-20, 20, (3, 16, 16), np.float32)
    encoder = SPNExtractor(space, norm).encoder.train()
    latents = torch.randn(3, 3, 16, 16)[torch.tensor([0, 1, 0, 2, 2, 0])]
    sizes = []
    encoder[0].register_forward_hook(lambda module, seen, out: sizes.append(len(seen[0])))
    torch.testing.assert_close(encode(encoder, latents), encoder(latents), atol=1e-5, rtol=0)
    assert sizes == [3 if norm == "group" else 6, 6]


@pytest.mark.parametrize(("memory", "norm"), [("gru", "group"), ("lstm", "group"), ("gru", "batch")])
def test_whole_episodes_are_judged_as_by_sb3_contrib(memory, norm):
    """Values, log-probabilities, entropies, and every weight's gradient; and statistics of batch norm."""
    torch.manual_seed(0)
    space = spaces.Box(-20, 20, (3, 16, 16), np.float32), spaces.Discrete(2)
    policy = SPNPolicy(*space, lambda _: 1e-3, memory=memory, hidden_size=12, norm=norm)
    latents, numbers = torch.randn(5, 3, 16, 16), torch.randint(0, 5, (DECISIONS, 3))
    actions = torch.randint(0, 2, (DECISIONS, 3))
    zeros = torch.zeros(1, 3, 12)
    states = RNNStates((zeros, zeros), (zeros, zeros))
    starts = torch.zeros(3, DECISIONS)
    starts[:, 0] = 1

    def gradients(values, log_prob, entropy):
        policy.zero_grad()
        (values.flatten() * 3 + log_prob + 2 * entropy).sum().backward()
        return [p.grad.clone() for p in policy.parameters() if p.grad is not None]

    # sb3-contrib's rows go episode by episode, ours decision by decision
    theirs = policy.evaluate_actions(
        latents[numbers.t().flatten()], actions.t().flatten(), states, starts.flatten()
    )
    before = gradients(*theirs)
    ours = policy.evaluate_actions(Seen(latents, numbers), actions.flatten(), None, None)
    after = gradients(*ours)
    for a, b in zip(theirs, ours, strict=True):
        torch.testing.assert_close(a.reshape(3, DECISIONS).t(), b.reshape(DECISIONS, 3), atol=1e-5, rtol=1e-4)
    assert len(before) == len(after) > 6
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.7, 1.0), (0.9, 0.8)])
def test_one_update_is_sb3_contribs(venv, gamma, lam):
    """The same roll-out from the same seed, the same returns, and after one step the same weights."""
    both = []
    for kind in (RecurrentPPO, EpisodicPPO):
        arguments = {"gamma": gamma, "gae_lambda": lam, "batch_size": 2 * DECISIONS * ENVS, "n_epochs": 1}
        one = agent(kind, venv(step_cost=0.01), **arguments)
        start = copy.deepcopy(one.policy.state_dict())
        both.append(one.learn(2 * DECISIONS * ENVS))
    theirs, ours = (one.rollout_buffer for one in both)
    shape = 2 * DECISIONS, ENVS
    for name in ("actions", "rewards", "values", "log_probs", "advantages", "returns"):
        # theirs was flattened episode by episode as it was read
        a = getattr(theirs, name)
        a = a.reshape(ENVS, -1).T if a.shape[0] != shape[0] else a
        np.testing.assert_allclose(a.reshape(shape), getattr(ours, name), atol=1e-5)
    for name, weight in both[0].policy.state_dict().items():
        step = weight - start[name]
        torch.testing.assert_close(both[1].policy.state_dict()[name] - start[name], step, atol=2e-5, rtol=0)
        assert step.abs().max() > 1e-5 or "lstm" in name


def test_returns_are_the_plain_sums(venv):
    """With gamma = lambda = 1 the return of every decision is what was still paid: the closed form."""
    one = agent(EpisodicPPO, venv(step_cost=0.01))
    one.learn(2 * DECISIONS * ENVS)
    buffer = one.rollout_buffer
    paid = buffer.rewards.reshape(2, DECISIONS, ENVS)
    left = paid[:, ::-1].cumsum(axis=1)[:, ::-1]
    np.testing.assert_allclose(buffer.returns.reshape(paid.shape), left, atol=1e-5)
    np.testing.assert_allclose(buffer.advantages, buffer.returns - buffer.values, atol=1e-5)
    # x_S1 comes again after each skip, and is kept once
    assert len(buffer.numbering) < 2 * DECISIONS * ENVS and buffer.numbers.max() + 1 == len(buffer.numbering)


def test_minibatches_are_whole_episodes_and_all_of_them(venv):
    one = agent(EpisodicPPO, venv())
    one.learn(2 * DECISIONS * ENVS)
    seen = []
    for part in one.rollout_buffer.get(4 * DECISIONS):
        assert part.observations.numbers.shape == (DECISIONS, 4) and part.mask.all()
        assert part.observations.latents.flatten(1).unique(dim=0).shape[0] == len(part.observations.latents)
        seen += part.returns.reshape(DECISIONS, 4).t().tolist()
    episodes = one.rollout_buffer.returns.reshape(2, DECISIONS, ENVS)
    assert sorted(seen) == sorted(episodes.transpose(0, 2, 1).reshape(-1, DECISIONS).tolist())


def test_it_stays_an_sb3_algorithm(venv, tmp_path):
    """Callbacks, saving, loading with a new environment, going on, predicting."""
    one = agent(EpisodicPPO, venv())
    per_update = 2 * DECISIONS * ENVS
    one.learn(2 * per_update, callback=CheckpointCallback(2 * DECISIONS, str(tmp_path)))
    assert one.num_timesteps == 2 * per_update and len(list(tmp_path.glob("*.zip"))) == 2
    assert one.ep_info_buffer[0]["l"] == DECISIONS
    one.save(tmp_path / "agent.zip")
    again = EpisodicPPO.load(tmp_path / "agent.zip", venv(3))
    again.learn(2 * DECISIONS * 3, reset_num_timesteps=False)
    assert again.num_timesteps == 2 * per_update + 2 * DECISIONS * 3 and again.n_envs == 3
    seen = venv(2).reset()
    actions, state = one.predict(seen, episode_start=np.ones(2, bool))
    assert actions.shape == (2,) and state[0].shape == (1, 2, 12)


def test_it_goes_on_after_a_callback_ended_it_amid_episodes(venv):
    class Stop(BaseCallback):
        def _on_step(self):
            return self.n_calls != 3

    one = agent(EpisodicPPO, venv())
    one.learn(1000, callback=Stop())
    assert one.num_timesteps == 3 * ENVS
    one.learn(2 * DECISIONS * ENVS, reset_num_timesteps=False)
    assert one.rollout_buffer.full and one.ep_info_buffer[0]["l"] == DECISIONS


def test_the_entropy_coefficient_falls(venv):
    one = agent(EpisodicPPO, venv(), ent_coef_end=0.01)
    one.learn(4 * 2 * DECISIONS * ENVS)
    assert one.ent_coef == pytest.approx(0.01)


def test_what_does_not_fit_is_said(venv):
    with pytest.raises(
        SkipDiffError, match="n_steps=5 is not a multiple of 4, the number of decisions in an episode"
    ):
        agent(EpisodicPPO, venv(), n_steps=5).learn(5)
    with pytest.raises(SkipDiffError, match="n_steps=3 is shorter than an episode"):
        agent(EpisodicPPO, venv(), n_steps=3).learn(3)
    with pytest.raises(SkipDiffError, match='observation="latent"'):
        agent(EpisodicPPO, venv(observation="dict"))


def test_sb3_contribs_own_algorithm_trains_the_policy(venv):
    one = agent(RecurrentPPO, venv(), norm="batch", n_steps=7)  # cut anywhere
    before = copy.deepcopy(one.policy.state_dict())
    one.learn(2 * 7 * ENVS)
    assert any(not torch.equal(before[name], w) for name, w in one.policy.state_dict().items())


def test_plain_ppo_learns_the_same_from_latents_seen_once(setting):
    """Plain PPO's extractor shares the convolutions, too: the update is that of all rows."""

    def trained(once):
        envs = setting(cache=LatentCache()).envs(ENVS, observation_size=16, observation="dict")
        options = {"features_extractor_class": ClockExtractor, "net_arch": [], "normalize_images": False}
        options["features_extractor_kwargs"] = {"hidden_size": 8, "norm": "group"}
        one = PPO(
            "MultiInputPolicy", SkipDiffVecEnv(envs, all_pairs(4, 3), 1), policy_kwargs=options,
            n_steps=DECISIONS, batch_size=DECISIONS * ENVS, n_epochs=1, seed=0, device="cpu",
        )  # fmt: skip
        if not once:
            encoder = one.policy.features_extractor.encoder
            one.policy.features_extractor.forward = lambda seen: one.policy.features_extractor.clock(
                encoder(seen["latent"]), seen["step"].flatten(1), None
            )
        one.learn(DECISIONS * ENVS)
        return one.policy.state_dict()

    shared, plain = trained(True), trained(False)
    for name, weight in plain.items():
        torch.testing.assert_close(shared[name], weight, atol=2e-5, rtol=0)
