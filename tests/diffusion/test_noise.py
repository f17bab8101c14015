"""Keyed noise: a function of (image, seed, level) alone, and standard normal."""

import hashlib
import itertools
import math
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from skipdiff_env.diffusion import NoiseKey, image_key, keyed_normal

SHAPE = (3, 8, 9)
KEYS = [NoiseKey(image, seed) for image in (0, 1, 2**63 - 1) for seed in (0, 1, 7)]


def test_shape_and_type():
    noise = keyed_normal(KEYS, range(9), SHAPE)
    assert noise.shape == (9, *SHAPE) and noise.dtype == torch.float32 and noise.is_contiguous()
    assert keyed_normal([], [], SHAPE).shape == (0, *SHAPE)


def test_rows_do_not_depend_on_their_batch_or_its_order():
    pairs = list(itertools.product(KEYS, (0, 1, 10, 100)))
    alone = {pair: keyed_normal([pair[0]], [pair[1]], SHAPE)[0] for pair in pairs}
    random.Random(0).shuffle(pairs)
    together = keyed_normal([k for k, _ in pairs], [t for _, t in pairs], SHAPE)
    for pair, row in zip(pairs, together, strict=True):
        assert torch.equal(row, alone[pair])


def test_global_random_state_is_neither_used_nor_touched():
    torch.manual_seed(1)
    first, state = keyed_normal(KEYS[:1], [5], SHAPE), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(keyed_normal(KEYS[:1], [5], SHAPE), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_every_part_of_the_key_matters():
    rows = keyed_normal(*zip(*itertools.product(KEYS, range(101)), strict=True), shape=(4,))
    assert len(torch.unique(rows, dim=0)) == len(KEYS) * 101
    assert len(torch.unique(rows)) > 0.999 * rows.numel()


def test_keys_do_not_run_into_one_another():
    """(1, 23, 4) must not be spelled like (12, 3, 4) or (1, 2, 34)."""
    keys = [NoiseKey(1, 23), NoiseKey(12, 3), NoiseKey(1, 2), NoiseKey(123, 4)]
    rows = keyed_normal(keys, [4, 4, 34, 4], (6,))
    assert len(torch.unique(rows, dim=0)) == 4


def test_numpy_integers_name_the_same_noise():
    plain = keyed_normal([NoiseKey(3, 5)], [7], SHAPE)
    assert torch.equal(keyed_normal([NoiseKey(np.int64(3), np.int64(5))], np.array([7]), SHAPE), plain)


def test_other_processes_draw_the_same_noise():
    code = (
        "import hashlib; from skipdiff_env.diffusion import NoiseKey, keyed_normal;"
        "print(hashlib.sha256(keyed_normal([NoiseKey(3, 5)], [7], (3, 8, 9)).numpy().tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = keyed_normal([NoiseKey(3, 5)], [7], SHAPE).numpy().tobytes()
    assert other.stdout.strip() == hashlib.sha256(here).hexdigest()


def test_moments_and_distribution_are_standard_normal():
    """Across keys as well as across pixels; thresholds are five standard errors or a KS bound."""
    keys = [NoiseKey(i, j) for i in range(40) for j in range(50)]
    noise = keyed_normal(keys, [3] * len(keys), (3, 4, 8)).double()
    n = noise.numel()
    assert abs(noise.mean()) < 5 / math.sqrt(n)
    assert abs(noise.square().mean() - 1) < 5 * math.sqrt(2 / n)
    assert abs(noise.pow(3).mean()) < 5 * math.sqrt(15 / n)
    assert abs(noise.pow(4).mean() - 3) < 5 * math.sqrt(96 / n)
    for sample in (noise.flatten(), noise[:, 0, 0, 0], noise[:, 2, 3, 7], noise[17].flatten()):
        ranked = sample.sort().values
        cdf = (1 + torch.erf(ranked / math.sqrt(2))) / 2
        m = len(ranked)
        steps = torch.arange(m + 1, dtype=torch.float64) / m
        distance = torch.maximum((steps[1:] - cdf).max(), (cdf - steps[:-1]).max())
        assert distance < 1.95 / math.sqrt(m)  # the 0.1 % point of Kolmogorov's distribution


def test_levels_seeds_and_images_are_uncorrelated():
    base = keyed_normal([NoiseKey(1, 1)], [5], (3, 64, 64)).flatten().double()
    for key, level in [(NoiseKey(1, 1), 4), (NoiseKey(1, 1), 6), (NoiseKey(1, 2), 5), (NoiseKey(2, 1), 5)]:
        other = keyed_normal([key], [level], (3, 64, 64)).flatten().double()
        assert abs((base * other).mean()) < 5 / math.sqrt(len(base))


def test_no_two_draws_coincide_among_many():
    """One draw a key: 150 000 keys must all differ.

    Generators seeded by 32 bits alone would be expected to coincide 2.6 times here.
    """
    count = 150_000
    rows = keyed_normal([NoiseKey(1, i) for i in range(count)], [1] * count, (4,))
    assert len(torch.unique(rows, dim=0)) == count


def test_as_many_keys_as_levels():
    for keys, levels in [(KEYS[:2], [1]), (KEYS[:1], [1, 2])]:
        with pytest.raises(ValueError):
            keyed_normal(keys, levels, SHAPE)


def test_image_key_is_the_identity_of_size_and_pixels():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (6, 4, 3), np.uint8)
    key = image_key(image)
    assert 0 <= key < 2**63 and image_key(image.copy()) == key
    changed = image.copy()
    changed[3, 2, 1] ^= 1
    others = [changed, image.reshape(4, 6, 3), image[::-1], image[..., ::-1], image[:5]]
    assert len({key, *map(image_key, others)}) == 6
    view = np.ascontiguousarray(image.transpose(1, 0, 2)).transpose(1, 0, 2)
    assert not view.flags.c_contiguous and image_key(view) == key
