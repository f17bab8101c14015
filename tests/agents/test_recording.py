"""Recorded episodes are the environment's episodes, and what they are named by."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

pytest.importorskip("sb3_contrib")
from skipdiff_agents.evaluate import Evaluator, Setting
from skipdiff_agents.pairs import UNSEEN, all_pairs
from skipdiff_agents.recording import RecordedSetting
from skipdiff_agents.settings import build_agent, read_settings
from skipdiff_agents.settings import step_cost as price_range
from skipdiff_agents.vec_env import SkipDiffVecEnv
from skipdiff_env.diffusion import SkipProcess, random_model, tiny_config
from skipdiff_env.envs.recordings import Graph, Recordings
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images import mixed_quality, open_source
from skipdiff_env.oracle import find_optimum, optimum_calls

FINE = 5


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """The same setting twice, alive and recorded; inputs are of mixed quality."""
    rng = np.random.default_rng(3)
    source = mixed_quality(open_source([rng.integers(0, 256, (40, 32, 3), dtype=np.uint8) for _ in range(4)]))
    folder = tmp_path_factory.mktemp("recordings")

    def make(rule):
        alive = Setting(random_model(tiny_config()), source, "psnr", fine_steps=FINE, skip_rule=rule)
        return alive, RecordedSetting(**vars(alive), folder=folder, sizes=(16, 32))

    return make


@pytest.mark.parametrize("rule", ["reset", "hold"])
def test_the_graph_is_the_processs(rule):
    graph, model = Graph(FINE, rule), random_model(tiny_config())
    assert len(graph.outcomes) == (FINE if rule == "reset" else 2 ** (FINE - 1))
    process = SkipProcess(model, fine_steps=FINE, skip_rule=rule)
    from skipdiff_env.diffusion import NoiseKey

    condition = model.condition(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    for number in range(2 ** (FINE - 1)):
        actions = [number >> i & 1 for i in range(FINE - 1)]
        state, here = process.start(condition, [NoiseKey(1, 0)]), 0
        for level, action in zip(range(FINE, 1, -1), actions, strict=True):
            assert graph.states[state.history[0]] == here
            state, here = process.step(state, [action]), int(graph.next[level, here, action])
        assert graph.outcomes[state.history[0]] == here


@pytest.mark.parametrize("rule", ["reset", "hold"])
def test_recorded_episodes_are_the_environments(settings, rule):
    alive, recorded = settings(rule)
    rng, prices = np.random.default_rng(0), (1e-3, 1e-1)
    arguments = {"observation": "dict", "observation_size": 16, "step_cost": prices}
    live, quick = alive.envs(4, **arguments), recorded.envs(4, **arguments)
    for _ in range(4):
        options = {"image": [0, 1, 2, 3], "noise_seed": [0, 1, 2, 7], "step_cost": [1e-3, 1e-2, 2e-2, 1e-1]}
        seen, infos = zip(*(env.reset(options=options) for env in (live, quick)), strict=True)
        total = np.zeros(4)
        for actions in rng.integers(0, 2, (FINE - 1, 4)):
            for key in ("latent", "step", "step_cost"):
                np.testing.assert_allclose(seen[0][key], seen[1][key], atol=4e-3)
                assert quick.single_observation_space[key].contains(seen[1][key][0])
            (a, *first), (b, *second) = (env.step(actions) for env in (live, quick))
            seen = [a, b]
            for told, others in ((first[3], second[3]), (second[3], infos[1])):
                assert {k: (told[k].dtype, told[k].shape) for k in told} == {
                    k: (others[k].dtype, others[k].shape) for k in told
                }
            np.testing.assert_allclose(first[0], second[0], rtol=1e-4)
            np.testing.assert_array_equal(first[1], second[1])
            total += first[0]
        np.testing.assert_allclose(second[3]["episode_return"], total, rtol=1e-4)  # all that was paid
        for key in ("evaluations", "actions", "image", "noise_seed", "step_cost", "reward_valid"):
            np.testing.assert_array_equal(first[3][key], second[3][key])
        for key in ("metric", "psnr", "ssim"):
            np.testing.assert_allclose(first[3][key], second[3][key], rtol=1e-4)
        assert set(first[3]) <= set(second[3])
    with pytest.raises(gymnasium.error.ResetNeeded):
        quick.step(np.zeros(4, np.int64))
    with pytest.raises(SkipDiffError, match="latents of 16, 32 pixels"):
        recorded.envs(1, observation_size=64)


@pytest.mark.parametrize("rule", ["reset", "hold"])
def test_the_optimum_and_every_policy_agree(settings, rule):
    alive, recorded = settings(rule)
    pairs = all_pairs(4, 1, UNSEEN)
    live, quick = Evaluator(alive, pairs, others=["ssim"]), Evaluator(recorded, pairs, others=["ssim"])
    for a, b in zip(live.optima(), quick.optima(), strict=True):
        assert a.reward == pytest.approx(b.reward, rel=1e-4) and len(a.outcomes) == len(b.outcomes)
        assert {o.actions: o.evaluations for o in a.outcomes} == {
            o.actions: o.evaluations for o in b.outcomes
        }
    for policy in ("denoise", "skip", 3):
        for a, b in zip(live(policy), quick(policy), strict=True):
            assert (a.actions, a.evaluations, a.image) == (b.actions, b.evaluations, b.image)
            assert (a.reward, *a.others) == pytest.approx((b.reward, *b.others), rel=1e-4)
    prices = [0.0, 1e9]
    dear = quick.best_rewards(prices)[1]
    assert dear == pytest.approx([-1e9] * 4)  # one evaluation, the last, cannot be avoided


def test_recordings_are_made_once_and_belong_to_their_model(settings, tmp_path):
    recorded = replace(settings("reset")[1], folder=tmp_path)
    pairs = all_pairs(2, 2)
    assert recorded.record(pairs) == 4 * optimum_calls(recorded.process)
    assert recorded.record(pairs) == 0
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 4 and recorded.recordings.seconds(0, 0) > 0
    names = {recorded.recordings.file(0, 0)}
    names.add(replace(recorded, model=random_model(tiny_config(), seed=1)).recordings.file(0, 0))
    names.add(replace(recorded, source=open_source([recorded.source[0]])).recordings.file(0, 5))
    names.add(replace(recorded, coarse_steps=20).recordings.file(0, 0))
    names.add(replace(recorded, sizes=(16,)).recordings.file(0, 0))
    assert len(names) == 5
    files[0].write_bytes(b"spoiled")
    with pytest.raises(SkipDiffError, match="delete it"):
        for pair in pairs:
            recorded.recordings.values(*pair)
    with pytest.raises(SkipDiffError, match="network calls, more than max_calls=2000"):
        replace(recorded, fine_steps=20, skip_rule="hold").envs(1)


def test_settings_made_from_another_have_answers_of_their_own(settings):
    """A setting remembers; what replace() makes of it must not, whichever field is changed."""
    _, recorded = settings("reset")
    before = recorded.rewards(0, 0)
    ssim = replace(recorded, metric="ssim")
    np.testing.assert_array_equal(
        ssim.rewards(0, 0), ssim.recordings.values(0, 0)[:, ssim.metrics.index("ssim")]
    )
    assert not np.allclose(ssim.rewards(0, 0), before)
    seeded = replace(recorded, model=random_model(tiny_config(), seed=1))
    assert seeded.process.model is seeded.model and not np.allclose(seeded.rewards(0, 0), before)
    swapped = replace(recorded, source=open_source([recorded.source[1], recorded.source[0]]))
    assert swapped.recordings.file(0, 0) != recorded.recordings.file(0, 0) and not np.allclose(
        swapped.rewards(0, 0), before
    )
    assert replace(recorded, skip_rule="hold").process.skip_rule == "hold"


def test_the_latents_in_memory_are_bounded(settings, monkeypatch):
    _, recorded = settings("reset")
    pairs = all_pairs(4, 2)
    recorded.record(pairs)
    size = recorded.recordings.latents(0, 0, 16).nbytes
    small = replace(recorded, max_bytes=3 * size)
    first = [small.latents(*pair, 16) for pair in pairs]
    assert sum(array.nbytes for array in small.recordings._latents.values()) == 3 * size
    read = []
    original = Recordings._read
    monkeypatch.setattr(Recordings, "_read", lambda s, *what: read.append(what) or original(s, *what))
    again = [small.latents(*pair, 16) for pair in (*pairs[-3:], pairs[0], pairs[-1], pairs[-3])]
    assert [what[:2] for what in read] == [pairs[0], pairs[-3]]  # pairs[0] drove out the oldest
    for a, b in zip(again, [*first[-3:], first[0], first[-1], first[-3]], strict=True):
        np.testing.assert_array_equal(a, b)


def test_relative_rewards_keep_the_order(settings):
    _, recorded = settings("reset")
    pairs = all_pairs(2, 1)
    scale = recorded.relative_rewards(pairs)["reward_scale"]
    assert scale == pytest.approx(np.mean([recorded.rewards(*pair).std() for pair in pairs]))
    paid, rewards_told, regrets = [], [], []
    for start in range(1, FINE + 1):
        envs = recorded.envs(2, reward_scale=scale, step_cost=0.5)
        envs.reset(options={"image": [0, 1], "noise_seed": [0, 0]})
        total = np.zeros(2)
        for level in range(FINE, 1, -1):
            _, rewards, _, _, infos = envs.step([int(level > start)] * 2)
            total += rewards
        means = np.array([recorded.rewards(*pair).mean() for pair in pairs])
        assert infos["episode_return"] == pytest.approx(total * scale + means)
        rewards_told.append(infos["episode_return"])
        regrets.append(infos["regret"])
        paid.append(total + 0.5 * start / scale)
    # under `reset` the starts are all outcomes there are
    assert np.array(regrets) == pytest.approx(np.max(rewards_told, axis=0) - np.array(rewards_told))
    assert np.mean(paid, axis=0) == pytest.approx([0, 0], abs=1e-9)
    assert np.std(paid, axis=0).mean() == pytest.approx(1)


def test_a_degraded_input_has_an_optimum_of_its_own(settings):
    alive, _ = settings("reset")
    clean = find_optimum(alive.model, alive.pair(1, 0).hr, 0, "psnr", fine_steps=FINE)
    jpeg = find_optimum(alive.model, alive.pair(1, 0).hr, 0, "psnr", fine_steps=FINE, lr=alive.pair(1, 0).lr)
    assert alive.optimum(1, 0).reward == pytest.approx(jpeg.reward) != clean.reward


def test_prices_are_drawn_and_told(settings):
    _, recorded = settings("reset")
    options = read_settings("ppo_step_cost") | {"observation_size": 16, "step_cost": [1e-3, 1e-1]}
    envs = recorded.envs(64, observation="dict", observation_size=16, step_cost=(1e-3, 1e-1))
    venv = SkipDiffVecEnv(envs, all_pairs(4, 2), seed=4)
    prices = venv.reset()["step_cost"]
    assert 1e-3 <= prices.min() < 5e-3 and 2e-2 < prices.max() <= 1e-1 and len(set(prices.ravel())) == 64
    np.testing.assert_array_equal(SkipDiffVecEnv(envs, all_pairs(4, 2), seed=4).reset()["step_cost"], prices)
    agent = build_agent(options, venv, FINE - 1)
    from skipdiff_agents.export import network_from_weights
    from skipdiff_env.policies.file import NetworkPolicy

    network = network_from_weights(agent.policy.state_dict())
    assert network.config.step_costs == pytest.approx((1e-3, 1e-1))
    seen = venv.reset()
    tensors = {key: torch.as_tensor(value) for key, value in seen.items()}
    agent.policy.set_training_mode(False)
    with torch.no_grad():
        features = agent.policy.extract_features(tensors)
        expected = agent.policy.action_net(features)
    for row in range(3):
        policy = NetworkPolicy(network, network.config, float(seen["step_cost"][row, 0]))
        logits, _ = policy.logits(tensors["latent"][row : row + 1], None)
        torch.testing.assert_close(logits[0], expected[row], atol=1e-4, rtol=0)
    with pytest.raises(SkipDiffError, match="sees only latents"):
        price_range(read_settings("recurrent_ppo") | {"step_cost": [1, 2]})
