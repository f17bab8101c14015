"""A model that is no network: the documented one, through sampler and environment, against its closed form.

Where pixels are N(c, s²), the best x̂0 is a regression of x_0 on x_t, and so every latent is known.
"""

import textwrap

import gymnasium
import numpy as np
import pytest
import torch
from reference.process64 import cosine_table

import skipdiff_env.diffusion.interop as interop
from skipdiff_env import SkipDiffSampler
from skipdiff_env.diffusion import NoiseKey, degrade, image_key, keyed_normal, start_actions, to_uint8

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
    _, latents, x0 = closed_form(model.condition(lr).double(), key, 10, actions, skip_rule)
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


@pytest.mark.parametrize("coarse_steps, start", [(10, 7), (20, 5), (5, 12)])
def test_the_sampler_is_the_closed_form(documented, picture, coarse_steps, start):
    model = documented["Guess"]()
    lr = degrade(as_tensor(picture), 4)[0].permute(1, 2, 0).numpy()
    states = []
    out = SkipDiffSampler(model, coarse_steps)(lr, policy=start, seed=9, callback=states.append)
    actions = start_actions(start, 100 // coarse_steps)
    condition = model.condition(as_tensor(lr)).double()
    x_s1, latents, x0 = closed_form(condition, NoiseKey(image_key(lr), 9), coarse_steps, actions)
    torch.testing.assert_close(states[-1].coarse[0].double(), x_s1, atol=2e-5, rtol=0)
    torch.testing.assert_close(states[-2].latent[0].double(), latents[-1], atol=2e-5, rtol=0)
    torch.testing.assert_close(states[-1].x0[0].double(), x0, atol=2e-5, rtol=0)
    assert out.trace[0].evaluations == coarse_steps + start - 1
