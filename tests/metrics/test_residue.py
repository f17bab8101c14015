"""Grain in flat areas, on pictures whose grain is known."""

from __future__ import annotations

import numpy as np
import pytest

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.metrics import load_metric


def grainy(deviation: float, seed: int = 0, flat: int = 96) -> np.ndarray:
    """Grain of this deviation, and in the lower part of the picture a strong texture, (1, 256, 256, 3)."""
    rng = np.random.default_rng(seed)
    image = 128 + rng.normal(0, deviation, (256, 256, 3))
    image[flat:] += np.random.default_rng(99).normal(0, 40, (256 - flat, 256, 3))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)[None]


@pytest.fixture(scope="module")
def residue():
    return load_metric("residue")


def test_a_picture_is_as_smooth_as_itself(residue):
    assert residue(grainy(4), grainy(4)) == pytest.approx([1])
    assert (residue.lower_better, residue.reference, residue.min_size) == (True, True, 16)


def test_it_is_the_ratio_of_deviations_and_texture_does_not_count(residue):
    original = grainy(4)
    for deviation in (2, 8, 16):
        made = grainy(deviation, seed=1)
        made[:, 96:] = 0
        # the blocks were chosen by the original's own grain, which so is a little smaller than the mean
        assert residue(made, original)[0] == pytest.approx(deviation / 4, rel=0.08)


def test_shading_is_no_grain(residue):
    original = grainy(3)
    ramp = np.linspace(-30, 30, 256)[None, :, None, None]
    shaded = np.clip(original + ramp, 0, 255).astype(np.uint8)
    assert residue(shaded, original)[0] == pytest.approx(1, abs=0.05)


def test_colour_counts_like_light(residue):
    original, blotched = grainy(2), grainy(2)
    blotched[..., 0] += np.uint8(1) * (np.indices((256, 256)).sum(0) % 2 * 12).astype(np.uint8)
    assert residue(blotched, original)[0] > 1.5


def test_a_perfectly_flat_original_counts_as_rounded(residue):
    flat = np.full((1, 64, 64, 3), 200, np.uint8)
    assert residue(flat, flat) == pytest.approx([1])
    noisy = flat + np.random.default_rng(0).integers(-6, 7, flat.shape).astype(np.uint8)
    # uniform whole numbers -6 … 6 deviate by √14; the blur takes a little of it
    assert residue(noisy, flat)[0] == pytest.approx(14**0.5 * 12**0.5, rel=0.05)


def test_each_picture_of_a_batch_is_scored_alone(residue):
    originals = np.concatenate([grainy(4), grainy(2, 3)])
    made = np.concatenate([grainy(8, 5), grainy(2, 6)])
    one_by_one = [residue(made[i : i + 1], originals[i : i + 1])[0] for i in range(2)]
    assert residue(made, originals).tolist() == one_by_one


def test_what_it_cannot_score_is_refused(residue):
    small = np.zeros((1, 15, 32, 3), np.uint8)
    with pytest.raises(SkipDiffError, match="at least 16x16"):
        residue(small, small)
    with pytest.raises(SkipDiffError, match="pass the HR pictures"):
        residue(grainy(1))
