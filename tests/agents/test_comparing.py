"""Comparing policies: the bootstrap, the table's numbers, and what a resumed CSV may be taken for."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from skipdiff_agents.compare import compare, markdown
from skipdiff_agents.evaluate import Evaluator, Result, bootstrap, by_image
from skipdiff_agents.pairs import all_pairs
from skipdiff_env import SkipDiffError
from skipdiff_env.diffusion import random_model, tiny_config
from skipdiff_env.images import mixed_quality, open_source


def test_bootstrap_of_independent_values():
    values = np.random.default_rng(1).normal(3.0, 1.0, 400)
    mean, low, high = bootstrap([*values, np.nan])
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((mean - 1.96 / 20, mean + 1.96 / 20), abs=0.03)
    assert all(np.isnan(bootstrap([np.nan]))) and all(np.isnan(bootstrap([])))


def test_noise_seeds_of_an_image_are_no_further_images():
    """Equal results under 25 noise seeds say as much as one."""
    values = np.random.default_rng(2).normal(0.0, 1.0, 100)
    alone, repeated = bootstrap(values), bootstrap(np.repeat(values[:, None], 25, axis=1))
    assert repeated == pytest.approx(alone)
    spread = [high - low for _, low, high in (alone, bootstrap(np.repeat(values, 25)))]
    assert spread[0] == pytest.approx(5 * spread[1], rel=0.1)  # the square root of 25 too sure of itself


def test_training_seeds_are_drawn_too():
    """Images alike, two training seeds 0 and 1: a mean of two draws is 0, 1/2 or 1."""
    values = np.broadcast_to([0.0, 1.0], (50, 3, 2))
    assert bootstrap(values) == (0.5, 0.0, 1.0)
    assert bootstrap(values[:, :, 1]) == (1.0, 1.0, 1.0)


def test_bootstrap_of_a_ratio():
    """Numerator and denominator are drawn together, so that a constant ratio is certain."""
    below = np.random.default_rng(3).uniform(1.0, 9.0, (20, 2, 1))
    values = np.concatenate([0.2 * below, 0.4 * below], axis=2)
    mean, low, high = bootstrap(values[:, :, 0], below[:, :, 0])
    assert (mean, low, high) == pytest.approx((0.2, 0.2, 0.2))
    assert bootstrap(values, below) == pytest.approx((0.3, 0.2, 0.4))
    assert bootstrap([1.0, 2.0], [3.0, 5.0])[0] == pytest.approx(3 / 8)  # of means, no mean of ratios
    assert math.isnan(bootstrap([0.0, 0.0], [0.0, 0.0])[1])


def results(rewards, evaluations=(11, 11, 11, 11), images=("a", "a", "b", "b")):
    """Two images under two noise seeds; metric = 1 / reward."""
    numbers = zip(images, (0, 1, 0, 1), rewards, evaluations, strict=True)
    return [
        Result(image, seed, reward, 1 / reward, 30.0, 0.5, evaluations, (1, 0), (reward / 2,))
        for image, seed, reward, evaluations in numbers
    ]


def test_values_by_image():
    played = results([1.0, 2.0, 3.0, 4.0], images=("a", "b", "a", "a"))
    np.testing.assert_array_equal(by_image(played, [1, 2, 3, 4]), [[1, 3, 4], [2, np.nan, np.nan]])


def test_the_tables_numbers():
    """Two images, two noise seeds, closed forms."""
    played = {
        "base": results([0.2, 0.2, 0.4, 0.4]),
        "agent": results([0.3, 0.3, 0.4, 0.4], (12, 14, 12, 14)),
    }
    text = markdown(played, "base", ["niqe", "other"], np.array([0.4, 0.4, 0.6, 0.6]))
    header, _, base, agent = ([cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines())
    assert header == [
        "policy", "reward", "reward − base", "niqe", "other", "PSNR", "SSIM", "evaluations", "regret",
        "gap closed",
    ]  # fmt: skip
    assert base == ["base", "0.30000", "", "3.7500", "0.1500", "30.0000", "0.5000", "11.0", "0.20000", ""]
    # Of two images drawn with replacement, none, one or both are the one that gained 0.1.
    assert agent[:3] == ["agent", "0.35000", "+0.05000 [+0.00000, +0.10000]"]
    assert agent[3:] == ["2.9167", "0.1750", "30.0000", "0.5000", "13.0", "0.15000", "25.0 %"]
    same = markdown(played, "base", ["niqe", "other"], np.array([0.2, 0.2, 0.4, 0.4]))
    assert same.splitlines()[3].endswith("| nan % |")  # no gap, nothing to close


class Counted:
    """Skips always, and counts the episodes."""

    def __init__(self):
        self.played = 0

    def __call__(self, latent, memory):
        self.played += len(latent) * (memory is None)
        return np.ones(len(latent), np.int64), True


def test_a_csv_is_believed_for_the_same_pixels_noise_and_precision_alone(tmp_path, tiny_setting):
    file, pairs = tmp_path / "table.csv", all_pairs(3, 1)

    def play(setting, pairs=pairs):
        policy = Counted()
        found = compare(Evaluator(setting, pairs), {"skip": policy}, file)["skip"]
        assert [r.reward for r in found] == [r.reward for r in Evaluator(setting, pairs)("skip")]
        return policy.played

    pictures = [tiny_setting.source[i] for i in range(3)]
    other = replace(tiny_setting, source=open_source([255 - picture for picture in pictures]))
    assert [other.source.name(i) for i in range(3)] == [tiny_setting.source.name(i) for i in range(3)]
    for setting in (tiny_setting, other, replace(tiny_setting, source=mixed_quality(tiny_setting.source))):
        assert play(setting) == 3 and play(setting) == 0
    assert play(tiny_setting) == 0 and play(tiny_setting, all_pairs(3, 1, 5)) == 3
    bfloat16 = random_model(tiny_config())
    bfloat16.dtype = torch.bfloat16
    assert play(replace(tiny_setting, model=bfloat16)) == 3 and play(tiny_setting) == 0


def test_a_csv_that_was_broken_off_is_continued(tmp_path, tiny_setting):
    file, evaluator = tmp_path / "table.csv", Evaluator(tiny_setting, all_pairs(3, 1), others=["psnr"])
    whole = compare(evaluator, {"skip": "skip", "denoise": "denoise"}, file)
    content = file.read_bytes()
    rows = content.splitlines(keepends=True)
    assert len(rows) == 1 + 6
    broken = {
        "half a row": content[: -len(rows[-1]) // 2],
        "half a number": content[:-3],  # which reads like a number
        "a row without its end": content.replace(rows[-1], rows[-1][:30] + b"\r\n"),
        "a row of words": content.replace(rows[-1], b"no," * rows[-1].count(b",") + b"no\r\n"),
    }
    for damaged in broken.values():
        file.write_bytes(damaged)
        policy = Counted()
        again = compare(evaluator, {"skip": policy, "denoise": "denoise"}, file)
        assert again == whole and policy.played == 0
        again = compare(evaluator, {"skip": policy, "denoise": policy}, file)  # now all of it is there
        assert again == whole and policy.played == 0
        assert all(line.endswith(b"\r\n") for line in file.read_bytes().splitlines(keepends=True))


@pytest.mark.parametrize("content", [b"holiday,snow\r\n1,2\r\n", b"no table", b"\x89PNG\r\n\x1a\n\x00\r\xff"])
def test_a_file_that_is_no_such_table_is_left_alone(tmp_path, tiny_setting, content):
    file = tmp_path / "table.csv"
    file.write_bytes(content)
    with pytest.raises(SkipDiffError, match="has other columns"):
        compare(Evaluator(tiny_setting, all_pairs(1, 1)), {"skip": "skip"}, file)
    assert file.read_bytes() == content
