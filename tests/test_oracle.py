"""The optimum against brute force, and the latent cache against no cache."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from skipdiff_env import SkipDiffError, find_optimum
from skipdiff_env.diffusion import NoiseKey, SkipProcess, image_key, random_model, to_uint8
from skipdiff_env.images import shrink
from skipdiff_env.latent_cache import CachedProcess, LatentCache
from skipdiff_env.oracle import optimum_calls

HR = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
FINE = 5


def brightness(images):
    """A metric that tells any two pictures apart."""
    weights = np.random.default_rng(9).random(images[0].shape)
    return (images * weights).mean((1, 2, 3))


class Counting:
    """A model that counts the rows it is asked about."""

    def __init__(self, model):
        self.model, self.rows, self.largest = model, 0, 0

    def __getattr__(self, name):
        return getattr(self.model, name)

    def predict(self, latent, condition, noise_level):
        self.rows, self.largest = self.rows + len(latent), max(self.largest, len(latent))
        return self.model.predict(latent, condition, noise_level)


def brute_force(model, skip_rule, metric):
    """Every schedule on its own: (reward, evaluations) by actions."""
    lr = shrink(HR, 4)
    condition = model.condition(torch.from_numpy(lr).permute(2, 0, 1)[None])
    process = SkipProcess(model, 10, FINE, skip_rule)
    found = {}
    for actions in itertools.product((0, 1), repeat=FINE - 1):
        state = process.start(condition, [NoiseKey(image_key(lr), 7)])
        for action in actions:
            state = process.step(state, [action])
        state = process.finish(state)
        image = to_uint8(state.x0).permute(0, 2, 3, 1).numpy()
        found[actions] = float(metric(image)[0]), int(state.evaluations[0])
    return found


@pytest.mark.parametrize("skip_rule", ["reset", "hold"])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_the_walk_finds_what_brute_force_finds(skip_rule, batch_size):
    model = Counting(random_model())
    tried = brute_force(model, skip_rule, brightness)
    model.rows = model.largest = 0
    optimum = find_optimum(
        model, HR, 7, brightness, fine_steps=FINE, skip_rule=skip_rule, batch_size=batch_size
    )
    assert model.largest == min(batch_size, FINE if skip_rule == "reset" else 2 ** (FINE - 1))
    assert len(optimum.outcomes) == (FINE if skip_rule == "reset" else 2 ** (FINE - 1))
    for outcome in optimum.outcomes:
        value, evaluations = tried[outcome.actions]
        assert outcome.reward == outcome.value == pytest.approx(value, abs=0.05)
        assert outcome.evaluations == evaluations
    assert optimum.reward == pytest.approx(max(value for value, _ in tried.values()), abs=0.05)
    assert optimum.schedule == optimum.outcomes[0].actions
    assert optimum.regret(optimum.reward - 1) == pytest.approx(1)
    assert optimum.calls == model.rows == optimum_calls(SkipProcess(model, 10, FINE, skip_rule))


def test_of_equal_schedules_the_cheapest_is_named():
    optimum = find_optimum(random_model(), HR, 0, brightness, fine_steps=FINE)
    assert sorted(o.actions for o in optimum.outcomes) == sorted(
        tuple([1] * skips + [0] * (FINE - 1 - skips)) for skips in range(FINE)
    )


def test_a_lower_is_better_metric_is_inverted_and_failures_come_last():
    def picky(images):
        return np.where(brightness(images) > np.median(brightness(images)), np.nan, brightness(images))

    picky.lower_better = True
    optimum = find_optimum(random_model(), HR, 0, picky, fine_steps=FINE)
    rewards = [o.reward for o in optimum.outcomes]
    assert rewards == sorted(rewards, reverse=True) and rewards[-1] == 0 and rewards[0] > 0
    assert optimum.best.value == pytest.approx(1 / optimum.reward)


def test_a_walk_beyond_the_budget_is_refused_with_its_count():
    with pytest.raises(SkipDiffError, match="takes 1048584 network calls"):
        find_optimum(random_model(), HR, 0, brightness, fine_steps=20, skip_rule="hold")
    with pytest.raises(SkipDiffError, match="nothing to decide"):
        find_optimum(random_model(), HR, 0, brightness, fine_steps=1)
    with pytest.raises(SkipDiffError, match="no-reference"):
        find_optimum(random_model(), HR[:8, :8], 0, "lpips", low_resolution=True)


def batch(model, count=3):
    lr = np.random.default_rng(1).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return model.condition(torch.from_numpy(lr).permute(0, 3, 1, 2)), [NoiseKey(image_key(x), 0) for x in lr]


def states(process, condition, keys, actions):
    found = [process.start(condition, keys)]
    for column in actions.T:
        found.append(process.step(found[-1], column))
    return [*found, process.finish(found[-1])]


@pytest.mark.parametrize("skip_rule", ["reset", "hold"])
def test_cached_equals_uncached_to_the_bit(skip_rule):
    model, cache = random_model(), LatentCache()
    condition, keys = batch(model)
    # All rows alike, so that the uncached run's network batches have the size of the cached run's.
    for actions in ([0] * 9, [1, 0] * 4 + [1], [1] * 9, [0] * 9):
        columns = np.tile(actions, (3, 1))
        plain = states(SkipProcess(model, skip_rule=skip_rule), condition, keys, columns)
        cached = states(CachedProcess(model, skip_rule=skip_rule, cache=cache), condition, keys, columns)
        for a, b in zip(plain, cached, strict=True):
            assert torch.equal(a.latent, b.latent) and torch.equal(a.coarse, b.coarse)
            assert torch.equal(to_uint8(a.x0), to_uint8(b.x0))
            assert np.array_equal(a.evaluations, b.evaluations) and np.array_equal(a.level, b.level)
            assert a.history == b.history


def test_a_warm_cache_needs_no_network_and_skip_rules_share_it():
    model, cache = Counting(random_model()), LatentCache()
    condition, keys = batch(model)
    reset = CachedProcess(model, cache=cache)
    straight = np.zeros((3, 9), int)
    states(reset, condition, keys, straight)
    spent = model.rows
    assert spent == 3 * 19
    states(reset, condition, keys, straight)
    states(CachedProcess(model, skip_rule="hold", cache=cache), condition, keys, straight)
    assert model.rows == spent
    mixed = np.array([[1] * 9, [0] * 9, [1] * 8 + [0]])  # rows 0 and 2 have something new, row 1 has not
    states(reset, condition, keys, mixed)
    assert model.rows == spent + 1 + 2


@pytest.mark.parametrize("skip_rule", ["reset", "hold"])
def test_rows_that_need_one_latent_at_the_same_time_share_a_network_call(skip_rule):
    model = Counting(random_model())
    condition, keys = batch(model, 2)
    rows = [0, 1, 0, 0, 1]
    condition, keys = condition[rows], [keys[i] for i in rows]
    columns = np.array([[0, 0, 0], [1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0]])
    columns = np.concatenate([columns, np.zeros((5, 6), int)], axis=1)
    plain = states(SkipProcess(model, skip_rule=skip_rule), condition, keys, columns)
    cache = LatentCache()
    before = model.rows
    cached = states(CachedProcess(model, skip_rule=skip_rule, cache=cache), condition, keys, columns)
    # Each latent once: as many calls as the cache has entries, less x_S1 of two pictures, plus their CSA.
    assert model.rows - before == len(cache) - 2 + 2 * 9 < before
    for a, b in zip(plain, cached, strict=True):
        assert torch.allclose(a.latent, b.latent, atol=1e-5) and torch.allclose(a.x0, b.x0, atol=0.5 / 127)
        assert np.array_equal(a.evaluations, b.evaluations) and a.history == b.history


def test_another_model_or_step_count_shares_nothing():
    cache = LatentCache()
    for number, process in enumerate(
        (
            CachedProcess(random_model(), cache=cache),
            CachedProcess(random_model(seed=1), cache=cache),
            CachedProcess(random_model(), 5, cache=cache),
            CachedProcess(random_model(), 10, coarse_levels="rebuilt", cache=cache),
        )
    ):
        process.start(*batch(process.model))
        assert (cache.hits, cache.misses) == (0, 3 * (number + 1))


def test_the_bound_in_bytes_holds_and_the_oldest_go_first():
    entry = torch.zeros(3, 8, 8)
    size = entry.nbytes + entry.numel()
    cache = LatentCache(max_bytes=3 * size)
    for key in (b"a", b"b", b"c"):
        cache.put(key, entry, entry.byte())
    assert cache.get(b"a") is not None
    cache.put(b"d", entry, entry.byte())
    assert cache.bytes == 3 * size and len(cache) == 3
    assert cache.get(b"b") is None and cache.get(b"a") is not None
    LatentCache(max_bytes=size - 1).put(b"a", entry, entry.byte())


def test_half_precision_costs_three_digits_and_no_more():
    cache = LatentCache(half=True)
    latent = torch.randn(3, 8, 8)
    cache.put(b"a", latent, latent.byte())
    assert torch.allclose(cache.get(b"a").latent, latent, rtol=1e-3)
    assert cache.bytes == 3 * latent.numel()  # two bytes of latent and one of image


@pytest.mark.parametrize("half", [False, True])
def test_a_file_outlives_its_cache_and_may_fill_up(tmp_path, half):
    pytest.importorskip("lmdb")
    latent = torch.randn(3, 8, 8)
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    first = LatentCache(half=half, file=str(tmp_path / "latents"), max_file_bytes=2**20)
    first.put(b"a", latent, image)
    del first
    again = LatentCache(half=half, file=str(tmp_path / "latents"), max_file_bytes=2**20)
    entry = again.get(b"a")
    assert torch.equal(entry.latent, latent.half().float() if half else latent) and torch.equal(
        entry.x0, image
    )
    for number in range(600):
        again.put(str(number).encode(), torch.randn(3, 16, 16), torch.zeros(3, 16, 16, dtype=torch.uint8))
    assert again.get(b"0") is not None


def test_a_model_without_a_hash_is_refused():
    model = random_model()
    model.hash = ""
    with pytest.raises(SkipDiffError, match="hash"):
        CachedProcess(model, cache=LatentCache())
