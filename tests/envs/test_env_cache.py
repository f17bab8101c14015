"""An environment with a cache gives what it gives without one, at a fraction of the network calls."""

import pickle

import numpy as np
import pytest

from skipdiff_env.latent_cache import LatentCache


def play(env, seed, episodes=3):
    """Observations, rewards and infos of some episodes under random actions."""
    record = []
    rng = np.random.default_rng(seed)
    for episode in range(episodes):
        record.append(env.reset(seed=seed if episode == 0 else None))
        for action in rng.integers(0, 2, env.get_wrapper_attr("process").decisions):
            record.append(env.step(int(action)))
    return record


@pytest.mark.parametrize("skip_rule", ["reset", "hold"])
def test_cached_episodes_are_the_uncached_ones(make, assert_close, skip_rule):
    cache = LatentCache()
    plain = play(make(noise="fixed", skip_rule=skip_rule), 1)
    env = make(noise="fixed", skip_rule=skip_rule, cache=cache)
    for _ in range(2):
        for cached, computed in zip(play(env, 1), plain, strict=True):
            for a, b in zip(cached, computed, strict=True):
                assert_close(a, b, 0)
        misses = cache.misses
    play(env, 1)
    assert cache.misses == misses


def test_metrics_do_not_share_their_scores(make, bright):
    cache = LatentCache()

    def darkness(images):
        return 256.0 - images.mean((1, 2, 3))

    first = play(make(noise="fixed", cache=cache), 1)[-1]
    second = play(make(noise="fixed", cache=cache, metric=darkness), 1)[-1]
    assert first[1] == pytest.approx(first[-1]["metric"])
    assert second[1] == pytest.approx(257.0 - first[1])


def test_a_batch_and_single_environments_share_one_cache(make, make_vec):
    cache = LatentCache()
    envs = make_vec(2, noise="fixed", cache=cache)
    envs.reset(options={"image": 1, "noise_seed": 4})
    for action in (0, 1, 0, 0, 0, 1, 0, 0, 0):
        _, rewards, *_ = envs.step(np.array([action, action]))
    misses = cache.misses
    env = make(cache=cache)
    env.reset(options={"image": 1, "noise_seed": 4})
    for action in (0, 1, 0, 0, 0, 1, 0, 0, 0):
        _, reward, *_ = env.step(action)
    assert cache.misses == misses and reward == rewards[0] == rewards[1]


def test_a_pickled_cache_is_an_empty_one_like_it():
    cache = LatentCache(max_bytes=10**6, half=True)
    cache.put_score(("metric",), 1.0)
    copy = pickle.loads(pickle.dumps(cache))
    assert len(copy) == 0 and copy.max_bytes == 10**6 and copy.half and copy.score(("metric",)) is None
