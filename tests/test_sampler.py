"""The sampler: what it accepts, what it returns, and that it is the process and nothing else."""

from __future__ import annotations

import io

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

from skipdiff_env import SkipDiffError, SkipDiffSampler
from skipdiff_env.diffusion import (
    NoiseKey,
    SkipProcess,
    image_key,
    random_model,
    start_actions,
    tiny_config,
    to_uint8,
)
from skipdiff_env.diffusion.schedule import NoiseSchedule
from skipdiff_env.policies.base import usual_start
from skipdiff_env.sampler import as_batch

LR = np.random.default_rng(0).integers(0, 256, (3, 8, 10, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    return random_model(tiny_config(target="residual", residual_scale=5.0))


def test_ten_ten_start_seven_takes_sixteen_evaluations(model):
    out = SkipDiffSampler(model)(LR[0], policy=7)
    assert out.images.shape == (1, 32, 40, 3) and out.images.dtype == np.uint8
    trace = out.trace[0]
    assert trace.evaluations == 16
    assert trace.actions == [1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert trace.levels == [*range(100, 0, -10), *range(9, -1, -1)]
    assert trace.seconds > 0


@pytest.mark.parametrize(
    ("coarse", "fine", "policy", "evaluations"),
    [(10, None, "skip", 10), (10, None, "denoise", 19), (5, 20, 12, 16), (20, 5, 5, 24), (100, 0, None, 100),
     (10, 0, None, 10), (10, 100, 7, 16), (1, 100, "denoise", 100)],
)  # fmt: skip
def test_evaluations_follow_the_formula(model, coarse, fine, policy, evaluations):
    trace = SkipDiffSampler(model, coarse, fine)(LR[0], policy=policy).trace[0]
    assert trace.evaluations == evaluations
    assert trace.evaluations == coarse - 1 + trace.actions.count(0) + 1


def test_it_is_the_process(model):
    process = SkipProcess(model)
    state = process.start(
        model.condition(torch.from_numpy(LR).permute(0, 3, 1, 2)), [NoiseKey(image_key(x), 5) for x in LR]
    )
    for action in start_actions(4, 10):
        state = process.step(state, [action] * 3)
    expected = to_uint8(process.finish(state).x0).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(SkipDiffSampler(model)(LR, policy=4, seed=5).images, expected)


def test_it_gives_what_the_environment_gives(model):
    source = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    env = gymnasium.make(
        "SkipDiff-v0", model=model, images=[source], metric=lambda x: x.mean((1, 2, 3)), return_image=True,
        observation="dict",
    )  # fmt: skip
    observation, info = env.reset(seed=3)
    for action in start_actions(6, 10):
        observation, _, _, _, last = env.step(action)
    lr = np.round(observation["lr"] * 255).astype(np.uint8).transpose(1, 2, 0)
    out = SkipDiffSampler(model)(lr, policy=6, seed=info["noise_seed"])
    assert np.array_equal(out.images[0], last["sr_image"])
    assert (
        out.trace[0].evaluations == last["evaluations"] and out.trace[0].actions == last["actions"].tolist()
    )


def test_every_form_of_input_means_the_same(model):
    sampler = SkipDiffSampler(model)
    expected = sampler(LR, policy=2).images
    tensor = torch.from_numpy(LR).permute(0, 3, 1, 2)
    for form in (
        list(LR),
        [Image.fromarray(x) for x in LR],
        tensor,
        tensor.float() / 255,
        [tensor[0], *LR[1:]],
    ):
        assert np.array_equal(sampler(form, policy=2).images, expected)


def test_a_picture_depends_on_its_own_pixels_and_seed_alone(model):
    sampler = SkipDiffSampler(model)
    batch = sampler(LR, policy=3, seed=[4, 5, 6]).images
    swapped = sampler(LR[::-1], policy=3, seed=[6, 5, 4]).images[::-1]
    assert np.abs(batch.astype(int) - swapped).max() <= 1
    alone = sampler(LR[1], policy=3, seed=5).images[0]
    assert np.abs(batch[1].astype(int) - alone).max() <= 1
    assert np.abs(batch[1].astype(int) - sampler(LR[1], policy=3, seed=7).images[0]).max() > 1


def test_a_callable_sees_latents_and_keeps_its_memory(model):
    seen = []

    def alternate(latent, memory):
        seen.append((tuple(latent.shape), memory))
        count = 0 if memory is None else memory
        return torch.full((len(latent),), count % 2), count + 1

    out = SkipDiffSampler(model)(LR[:2], policy=alternate)
    assert [shape for shape, _ in seen] == [(2, 3, 32, 40)] * 9
    assert [memory for _, memory in seen] == [None, *range(1, 9)]
    assert [t.actions for t in out.trace] == [[0, 1] * 4 + [0]] * 2


def test_the_model_s_own_start_is_the_default():
    for start, expected in ((9, 18), (None, 16), (40, 16)):
        sampler = SkipDiffSampler(random_model(tiny_config(start=start)))
        assert sampler(LR[0]).trace[0].evaluations == expected


@pytest.mark.parametrize(
    ("pair", "own", "start"),
    [
        ((10, None), 6, 6), ((20, None), 6, 3), ((5, None), 6, 12), ((10, 100), 6, 6), ((10, 4), 6, 4),
        ((10, None), None, 7), ((4, None), None, 18), ((50, None), 1, 1), ((10, None), 11, 7),
    ],
)  # fmt: skip
def test_a_start_moves_with_the_level_at_which_csa_ends(pair, own, start):
    assert usual_start(NoiseSchedule.cosine(100), *pair, own=own) == start


def test_the_callback_sees_every_level(model):
    levels = []
    out = SkipDiffSampler(model)(LR[0], policy=1, callback=lambda state: levels.append(int(state.level[0])))
    assert [100, *levels] == out.trace[0].levels


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: s(LR[0], policy=11), "start=11 must be a whole number from 1 to 10"),
        (lambda s: s(LR[0], policy="often"), "unknown policy 'often'"),
        (lambda s: s(LR[0], policy=True), "unknown policy True"),
        (lambda s: s(LR, seed=[1, 2]), "images 3, seeds 2"),
        (lambda s: s([LR[0], LR[0][:4]]), "the same size, got 10x4, 10x8"),
        (lambda s: s([]), "there is no image"),
        (lambda s: s(LR[0].astype(np.float32)), "the image: .*uint8"),
        (lambda s: s(LR[0, ..., :2]), "the image: .*uint8"),
        (lambda s: s(np.zeros((0, 8, 8, 3), np.uint8)), "there is no image"),
        (lambda s: s(torch.full((3, 8, 8), -0.5)), "numbers from 0 to 1, got -0.5"),
        (lambda s: s(torch.full((3, 8, 8), torch.nan)), "numbers from 0 to 1, got nan"),
        (lambda s: s("picture.png"), "expected an array, a PIL image or a tensor, got str"),
        (
            lambda s: s(LR[0], policy=lambda latent, memory: ([2], None)),
            "one action, 0 .denoise. or 1 .skip.",
        ),
    ],
)
def test_bad_requests_are_named(model, call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call(SkipDiffSampler(model))
    assert "\n" not in str(caught.value) or isinstance(caught.value, SkipDiffError) is False


def test_pictures_are_read_as_the_rest_of_the_package_reads_them():
    """Depth, transparency and orientation are Pillow's baggage, and are dealt with in one place."""
    picture = Image.fromarray(LR[0])
    for mode in ("L", "P"):
        assert as_batch(picture.convert(mode)).shape == (1, 8, 10, 3)
    deep = Image.fromarray(np.full((8, 8), 30000, np.uint16))
    assert np.unique(as_batch(deep)).tolist() == [117]
    assert (as_batch(Image.new("RGBA", (8, 8), (0, 0, 0, 0))) == 255).all()
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by a quarter
    file = io.BytesIO()
    picture.save(file, "PNG", exif=exif)
    assert as_batch(Image.open(file)).shape == (1, 10, 8, 3)


def test_a_policy_s_gradients_survive(model):
    """REINFORCE through the sampler: what the policy computes from latents may be differentiated."""
    weight, outputs = torch.ones(1, requires_grad=True), []

    def policy(latent, memory):
        outputs.append((latent * weight).mean())
        return [0] * len(latent), None

    SkipDiffSampler(model)(LR[0], policy=policy)
    sum(outputs).backward()
    assert torch.isfinite(weight.grad).all() and weight.grad.abs() > 0
