"""Text and line art among the training images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.training import load_recipe
from skipdiff_env.training.data.bank import load_bank
from skipdiff_env.training.data.drawings import SIDE, drawing
from tests.training.training_helpers import picture


def test_drawings_are_the_same_each_time_and_differ() -> None:
    first = [drawing(seed) for seed in range(12)]
    assert all(image.shape == (SIDE, SIDE, 3) and image.dtype == np.uint8 for image in first)
    assert all(np.array_equal(image, drawing(seed)) for seed, image in enumerate(first))
    assert len({image.tobytes() for image in first}) == len(first)


def test_drawings_have_flat_grounds_and_hard_but_smooth_edges() -> None:
    for seed in range(8):
        light = drawing(seed).astype(float).mean(axis=2)
        steps = np.abs(np.diff(light, axis=1))
        assert (steps == 0).mean() > 0.3, seed
        assert steps.max() > 40, seed
        assert ((steps > 2) & (steps < 30)).any(), seed  # edges have values between


def test_a_bank_draws_them_like_other_images(tmp_path: Path) -> None:
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), picture(i, 48, 52))
    bank, report = load_bank([tmp_path], 32, drawings=5)
    assert len(bank) == 8 and str(report) == "3 images, 5 drawings"
    assert np.array_equal(bank.image(5), drawing(2))
    without, _ = load_bank([tmp_path], 32)
    assert bank.fingerprint != without.fingerprint
    assert bank.crops(32, 40, torch.Generator().manual_seed(0)).shape == (40, 3, 32, 32)


@pytest.mark.parametrize("change", ["{crop: 260, drawings: 4}", "{crop: 64, drawings: 4, in_memory: false}"])
def test_drawings_that_cannot_be_had_are_refused(change: str) -> None:
    with pytest.raises(SkipDiffError, match="drawings = 4 needs in_memory, and a crop of at most 256"):
        load_recipe("tiny", overrides=[f"data={change}"])
