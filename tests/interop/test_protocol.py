"""A model that is no network: the documented one, through sampler and environment, against its closed form.

Where pixels are N(c, s²), the best x̂0 is a regression of x_0 on x_t, and so every latent is known.
"""

import copy
import pickle
import textwrap

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

import skipdiff_env.diffusion.interop as interop
from skipdiff_env import SkipDiffSampler, find_optimum
from skipdiff_env.chains import CCSR, default_for
from skipdiff_env.diffusion import (
    NoiseKey,
    NoiseSchedule,
    as_model,
    degrade,
    image_key,
    keyed_normal,
    start_actions,
    to_uint8,
)
from skipdiff_env.errors import SkipDiffError
from tests.reference.process64 import cosine_table

SPREAD = 0.1


@pytest.fixture(scope="module")
def documented():
    """What the example in the documentation defines."""
    example = interop.__doc__.split("::\n\n")[1].split("\nThe same object")[0]
    code = textwrap.dedent(example)
    model = code[code.index("class Guess") : code.index("\nimage =")]
    assert len([line for line in model.splitlines() if line.strip()]) <= 20
    found = {}
    exec(code, found)
    return found


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)


def as_tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def enlarged(lr, scale=4):
    """c of uint8 (B, 3, h, w), by Pillow: its "F" images keep the overshoots, which are then cut off."""
    size = (lr.shape[-1] * scale, lr.shape[-2] * scale)
    planes = [
        np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC))
        for plane in (lr[0].float() / 127.5 - 1).numpy()
    ]
    return torch.from_numpy(np.stack(planes))[None].clamp(-1, 1)


def closed_form(condition, key, coarse_steps, actions, skip_rule="reset"):
    """x_S1, the latents decided at, and the final x̂0, float64; c, x_t and x_0 are jointly Gaussian."""
    table, steps = cosine_table(100), 100
    width = steps // coarse_steps

    def draw(level):
        return keyed_normal([key], [level], condition.shape[1:])[0].double()

    def x0_given(x, a):
        covariance, variance = a**0.5 * SPREAD**2, a * SPREAD**2 + 1 - a
        return condition[0] + covariance / variance * (x - a**0.5 * condition[0])

    def descend(x, t, u):
        a, b = table[t], table[u]
        x0 = x0_given(x, a)
        if u == 0:
            return x0
        # Noise so far, n_t = x_t - √ᾱ_t x_0; n_u given n_t by regression, and the rest of its variance anew.
        slope = (a / b) ** 0.5 * (1 - b) / (1 - a)
        fresh = (1 - b - slope**2 * (1 - a)) ** 0.5
        return b**0.5 * x0 + slope * (x - a**0.5 * x0) + fresh * draw(u)

    x = draw(steps)
    for t in range(steps, width, -width):
        x = descend(x, t, t - width)
    latents, u = [x], x
    for t, action in zip(range(len(actions) + 1, 1, -1), actions, strict=True):
        u = descend(u, t, t - 1) if action == 0 else x if skip_rule == "reset" else u
        latents.append(u)
    return x, latents, descend(u, 1, 0)


ACTIONS = [start_actions(7, 10), [0] * 9, [1] * 9, [0, 1, 0, 0, 1, 1, 0, 0, 0]]


def test_the_example_makes_a_picture(documented):
    assert documented["image"].shape == (64, 64, 3) and documented["image"].dtype == np.uint8


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("skip_rule", ["reset", "hold"])
def test_every_observation_of_the_environment_is_the_closed_form(documented, picture, actions, skip_rule):
    model = documented["Guess"]()
    env = gymnasium.make(
        "skipdiff_env:SkipDiff-v0", model=model, images=[picture], image_size=32, skip_rule=skip_rule,
        metric=lambda images: images.mean((1, 2, 3)), return_image=True,
    )  # fmt: skip
    lr = degrade(as_tensor(picture), 4)
    key = NoiseKey(image_key(lr[0].permute(1, 2, 0).numpy()), 5)
    _, latents, x0 = closed_form(enlarged(lr).double(), key, 10, actions, skip_rule)
    seen, info = env.reset(options={"image": 0, "noise_seed": 5})
    assert info["evaluations"] == 9
    for action, wanted in zip(actions, latents, strict=False):
        np.testing.assert_allclose(seen, wanted, atol=2e-5)
        seen, reward, done, _, info = env.step(action)
    assert done and info["evaluations"] == 10 + actions.count(0)
    wanted = to_uint8(x0.float()[None])[0].permute(1, 2, 0).numpy()
    assert np.abs(info["sr_image"].astype(int) - wanted).max() <= 1  # 2e-5 can tip a pixel
    assert (info["sr_image"] == wanted).mean() > 0.99
    assert reward == pytest.approx(info["sr_image"].mean())


def test_the_batched_environment_is_the_closed_form(documented, picture):
    """Three schedules of one noise seed, side by side."""
    model, actions = documented["Guess"](), np.array(ACTIONS[:3])
    envs = gymnasium.make_vec(
        "skipdiff_env:SkipDiff-v0", 3, model=model, images=[picture], image_size=32,
        metric=lambda images: images.mean((1, 2, 3)),
    )  # fmt: skip
    lr = degrade(as_tensor(picture), 4)
    key = NoiseKey(image_key(lr[0].permute(1, 2, 0).numpy()), 5)
    wanted = [closed_form(enlarged(lr).double(), key, 10, row)[1] for row in actions.tolist()]
    seen, _ = envs.reset(options={"image": 0, "noise_seed": 5})
    for decision in range(9):
        np.testing.assert_allclose(seen, np.stack([row[decision] for row in wanted]), atol=2e-5)
        seen, _, done, _, _ = envs.step(actions[:, decision])
    assert done.all()


def test_the_optimum_is_that_of_the_closed_form(documented, picture):
    """Of the ten outcomes under ``reset``, the brightest."""
    lr = degrade(as_tensor(picture), 4)
    key = NoiseKey(image_key(lr[0].permute(1, 2, 0).numpy()), 5)
    results = [
        to_uint8(closed_form(enlarged(lr).double(), key, 10, start_actions(start, 10))[2].float()[None])
        for start in range(1, 11)
    ]
    wanted = np.array([float(result.double().mean()) for result in results])
    best = find_optimum(
        documented["Guess"](), picture, noise_seed=5, metric=lambda images: images.mean((1, 2, 3))
    )
    assert sorted(outcome.value for outcome in best.outcomes) == pytest.approx(sorted(wanted), abs=1e-2)
    assert best.reward == pytest.approx(wanted.max(), abs=1e-2)


def test_what_a_model_says_itself_counts(documented, picture):
    """Its scale, its condition and its chain: here the chain is made of x_0 - c, twice as large a picture."""

    class Residual(documented["Guess"]):
        scale, image_size, hash = 2, 32, "guess"

        def condition(self, lr):
            return torch.zeros(len(lr), 3, 2 * lr.shape[-2], 2 * lr.shape[-1])

        def to_latent(self, image, condition):
            return image - condition

    model = Residual()
    whole = as_model(model)
    assert as_model(whole) is whole
    assert (whole.scale, whole.image_size, whole.hash, whole.start) == (2, 32, "guess", None)
    assert whole.condition == model.condition and whole.to_latent == model.to_latent
    half = as_model(
        type("Half", (), {"schedule": model.schedule, "predict": None, "scale": 2, "hash": "h"})()
    )
    lr = torch.randint(0, 256, (1, 3, 8, 6), dtype=torch.uint8)
    torch.testing.assert_close(half.condition(lr), enlarged(lr, 2))
    assert half.to_latent(lr, None) is lr and half.hash == "h" and half.image_size is None
    assert SkipDiffSampler(model)(picture, policy=3).images.shape == (1, 64, 64, 3)


@pytest.mark.parametrize("missing", ["predict", "schedule"])
def test_what_is_no_model_is_refused_naming_what_it_lacks(documented, missing):
    members = {"predict": documented["Guess"].predict, "schedule": documented["Guess"].schedule}
    members.pop(missing)
    thing = type("Thing", (), members)()
    for plug in (SkipDiffSampler, lambda model: gymnasium.make("skipdiff_env:SkipDiff-v0", model=model)):
        with pytest.raises(SkipDiffError, match=f"class Thing is not a model, since it lacks '{missing}'"):
            plug(thing)


@pytest.mark.parametrize("coarse_steps, start", [(10, 7), (20, 5), (5, 12)])
def test_the_sampler_is_the_closed_form(documented, picture, coarse_steps, start):
    model = documented["Guess"]()
    lr = degrade(as_tensor(picture), 4)[0].permute(1, 2, 0).numpy()
    states = []
    out = SkipDiffSampler(model, coarse_steps)(lr, policy=start, seed=9, callback=states.append)
    actions = start_actions(start, 100 // coarse_steps)
    condition = enlarged(as_tensor(lr)).double()
    x_s1, latents, x0 = closed_form(condition, NoiseKey(image_key(lr), 9), coarse_steps, actions)
    torch.testing.assert_close(states[-1].coarse[0].double(), x_s1, atol=2e-5, rtol=0)
    torch.testing.assert_close(states[-2].latent[0].double(), latents[-1], atol=2e-5, rtol=0)
    torch.testing.assert_close(states[-1].x0[0].double(), x0, atol=2e-5, rtol=0)
    assert out.trace[0].evaluations == coarse_steps + start - 1


class Cubic:
    """The least that a model may be."""

    schedule = NoiseSchedule.cosine(steps=20)

    def predict(self, latent, condition, noise_level):
        return condition


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_completed_model_can_be_copied(again, picture):
    lr = picture[:8, :8]
    model = again(as_model(Cubic()))
    assert model.name == "Cubic"
    image = SkipDiffSampler(model)(lr).images
    np.testing.assert_array_equal(image, SkipDiffSampler(Cubic())(lr).images)


def test_chains_complete_a_model_themselves(picture):
    lr = torch.from_numpy(picture[:8, :8]).permute(2, 0, 1)[None]
    condition, keys = enlarged(lr), [NoiseKey(1, 2)]
    for chain in (default_for(Cubic()), CCSR(3)):
        torch.testing.assert_close(chain(Cubic(), condition, keys).x0, condition, rtol=0, atol=0)


def test_any_seed_will_do_for_random_decisions(picture):
    sampler = SkipDiffSampler(Cubic(), coarse_steps=2)
    negative, its_bits = (sampler(picture[:8, :8], "random", seed) for seed in (-1, 2**64 - 1))
    assert negative.trace[0].actions == its_bits.trace[0].actions
