"""CSA and FSR against an independent float64 re-computation; evaluations and outcomes of every schedule."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from skipdiff_env.diffusion import (
    NoiseKey,
    SkipProcess,
    keyed_normal,
    random_model,
    start_actions,
    tiny_config,
)
from tests.reference import process64, unet64
from tests.reference.toy import Toy, drive, make_batch

PAIRS = [(10, 10), (5, 20), (20, 5), (10, 100), (1, 100)]
TOLERANCE = 2e-5
"""Between float32 chains of up to 110 jumps and float64 ones."""

AGAIN = 100
"""What is added to a level's key where FSR comes to a level at which CSA has been (F > N)."""


def reference(model, condition, key, **arguments):
    """The float64 run of one row, on the same keyed noise."""

    def noise(level, again):
        return keyed_normal([key], [level + AGAIN * again], condition.shape)[0].double().numpy()

    return process64.run(
        model.predict64,
        condition.double().numpy(),
        noise,
        to_latent=model.to_latent64,
        **arguments,
    )


@pytest.mark.parametrize("coarse_levels", ["strided", "rebuilt"])
@pytest.mark.parametrize("skip_rule", ["reset", "hold"])
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("residual", [None, 5.0])
def test_agrees_with_the_float64_recomputation(pair, skip_rule, coarse_levels, residual):
    coarse_steps, fine_steps = pair
    model = Toy(residual)
    process = SkipProcess(model, coarse_steps, fine_steps, skip_rule, coarse_levels)
    condition, keys = make_batch(4, seed=fine_steps)
    rng = np.random.default_rng(coarse_steps)
    actions = (rng.random((4, fine_steps - 1)) < [[0.1], [0.5], [0.9], [0.0]]).astype(int)
    final, seen = drive(process, condition, keys, actions)
    for row in range(4):
        wanted = reference(
            model, condition[row], keys[row], coarse_steps=coarse_steps, fine_steps=fine_steps,
            actions=actions[row], skip_rule=skip_rule, rebuilt=coarse_levels == "rebuilt",
        )  # fmt: skip
        np.testing.assert_allclose(final.x0[row].numpy(), wanted.image, atol=TOLERANCE)
        np.testing.assert_allclose(final.coarse[row].numpy(), wanted.x_s1, atol=TOLERANCE)
        for got, expected in zip(seen, wanted.seen, strict=True):
            np.testing.assert_allclose(got[row].numpy(), expected, atol=TOLERANCE)
        assert final.evaluations[row] == wanted.evaluations
        assert final.level[row] == 0


@pytest.mark.parametrize("coarse_levels", ["strided", "rebuilt"])
@pytest.mark.parametrize("coarse_steps", [1, 2, 10, 50])
def test_csa_alone_agrees_with_the_recomputation(coarse_steps, coarse_levels):
    model = Toy(residual=3.0)
    process = SkipProcess(model, coarse_steps, fine_steps=0, coarse_levels=coarse_levels)
    condition, keys = make_batch(2)
    final, _ = drive(process, condition, keys, np.empty((2, 0)))
    for row in range(2):
        wanted = reference(
            model, condition[row], keys[row], coarse_steps=coarse_steps, fine_steps=0, actions=[],
            rebuilt=coarse_levels == "rebuilt",
        )  # fmt: skip
        np.testing.assert_allclose(final.x0[row].numpy(), wanted.image, atol=TOLERANCE)
    assert final.evaluations.tolist() == [coarse_steps] * 2 and final.level.tolist() == [0, 0]


def test_no_csa_and_all_denoised_is_the_full_chain():
    model = Toy()
    condition, keys = make_batch(2)
    full, _ = drive(SkipProcess(model, 100, 0), condition, keys, np.empty((2, 0)))
    fine, _ = drive(SkipProcess(model, 1, 100), condition, keys, np.zeros((2, 99), int))
    assert torch.equal(full.x0, fine.x0)
    assert full.evaluations.tolist() == fine.evaluations.tolist() == [100, 100]


@pytest.mark.parametrize("prediction, target, tolerance", [("v", "residual", 1e-4), ("noise", "image", 5e-3)])
def test_a_whole_network_agrees_with_float64(prediction, target, tolerance):
    """U-Net, x̂0 formula, clamp and chain together, all re-computed in float64."""
    config = tiny_config(
        prediction=prediction, target=target, residual_scale=4.0 if target == "residual" else 1.0
    )
    config = replace(config, unet=replace(config.unet, attention_sizes=(16,), middle_attention=True))
    model = random_model(config, seed=3)
    weights = {k: v.double().numpy() for k, v in model.network.state_dict().items()}
    fields = vars(config.unet)

    def predict64(latent, condition, level):
        output = unet64.unet(np.concatenate([condition, latent]), level, weights, fields)
        sigma = np.sqrt(1 - level**2)
        x0 = level * latent - sigma * output if prediction == "v" else (latent - sigma * output) / level
        return np.clip(condition + x0 / 4 if target == "residual" else x0, -1, 1)

    model.predict64 = predict64
    model.to_latent64 = lambda image, condition: 4 * (image - condition) if target == "residual" else image
    condition, keys = make_batch(2, (3, 8, 8))
    rng = np.random.default_rng(1)
    for coarse_steps, fine_steps, skip_rule in [(10, 10, "hold"), (20, 5, "reset")]:
        actions = rng.integers(0, 2, (2, fine_steps - 1))
        final, _ = drive(SkipProcess(model, coarse_steps, fine_steps, skip_rule), condition, keys, actions)
        for row in range(2):
            wanted = reference(
                model, condition[row], keys[row], coarse_steps=coarse_steps, fine_steps=fine_steps,
                actions=actions[row], skip_rule=skip_rule,
            )  # fmt: skip
            np.testing.assert_allclose(final.x0[row].numpy(), wanted.image, atol=tolerance)


@pytest.mark.parametrize("skip_rule", ["reset", "hold"])
@pytest.mark.parametrize("pair", [(20, 5), (50, 2), (100, 1), (10, 3), (1, 4)])
def test_evaluations_follow_the_formula_for_every_schedule(pair, skip_rule):
    coarse_steps, fine_steps = pair
    schedules = list(itertools.product([0, 1], repeat=fine_steps - 1))
    model = Toy()
    process = SkipProcess(model, coarse_steps, fine_steps, skip_rule)
    assert process.decisions == fine_steps - 1
    condition, keys = make_batch(len(schedules), (3, 2, 2))
    final, _ = drive(process, condition, keys, np.array(schedules, int).reshape(len(schedules), -1))
    expected = [(coarse_steps - 1) + schedule.count(0) + 1 for schedule in schedules]
    assert final.evaluations.tolist() == expected
    assert sum(len(call) for call in model.calls) == sum(expected)  # only what denoises is computed
    assert final.evaluations.dtype == np.int64


@pytest.mark.parametrize("fine_steps", [1, 2, 10, 20])
def test_start_k_costs_k_evaluations(fine_steps):
    for k in range(1, fine_steps + 1):
        actions = start_actions(k, fine_steps)
        assert actions == [1] * (fine_steps - k) + [0] * (k - 1)
        condition, keys = make_batch(1, (3, 2, 2))
        final, _ = drive(SkipProcess(Toy(), 10, fine_steps), condition, keys, [actions])
        assert final.evaluations.tolist() == [9 + k]


def test_start_seven_is_the_papers_sixteen():
    condition, keys = make_batch(1, (3, 2, 2))
    final, _ = drive(SkipProcess(Toy()), condition, keys, [start_actions(7, 10)])
    assert final.evaluations.tolist() == [16]


@pytest.mark.parametrize("start", [0, -1, 11])
def test_starts_outside_the_fine_levels_are_refused(start):
    with pytest.raises(ValueError, match=f"start={start} must be a whole number from 1 to 10"):
        start_actions(start, 10)


def outcomes(model, skip_rule, condition, key, fine_steps=10):
    """Final x̂0 of every schedule of one image and noise seed, CSA done once."""
    schedules = np.array(list(itertools.product([0, 1], repeat=fine_steps - 1)))
    process = SkipProcess(model, 10, fine_steps, skip_rule)
    state = process.start(condition, [key]).select([0] * len(schedules))
    for column in schedules.T:
        state = process.step(state, column)
    return schedules, process.finish(state).x0.flatten(1)


def cluster(images, tolerance=1e-5):
    """Representatives such that every image is within ``tolerance`` of exactly one of them."""
    found = images[:1]
    for image in images[1:]:
        if (found - image).abs().amax(1).min() > tolerance:
            found = torch.cat([found, image[None]])
    if len(found) > 1:
        gaps = torch.cdist(found, found, p=float("inf")) + torch.eye(len(found)) * 9
        assert gaps.min() > 10 * tolerance  # nothing is merely nearly the same
    return found


@pytest.mark.parametrize("prediction", ["v", "noise"])
def test_reset_has_exactly_f_outcomes(prediction):
    """The outcome depends on the last skip alone: start 1 … F, nothing else."""
    model = random_model(tiny_config(prediction=prediction), seed=1)
    condition, (key,) = make_batch(1, (3, 8, 8))
    schedules, images = outcomes(model, "reset", condition, key)
    assert len(schedules) == 512
    tolerance = 1e-5 if prediction == "v" else 2e-3
    assert len(cluster(images, tolerance)) == 10
    last_skip = np.array([max((i + 1 for i, a in enumerate(s) if a), default=0) for s in schedules])
    for value in range(10):
        assert len(cluster(images[last_skip == value], tolerance)) == 1


@pytest.mark.parametrize("prediction", ["v", "noise"])
def test_hold_has_exactly_two_to_the_f_minus_one_outcomes(prediction):
    model = random_model(tiny_config(prediction=prediction), seed=1)
    condition, (key,) = make_batch(1, (3, 8, 8))
    _, images = outcomes(model, "hold", condition, key)
    assert len(cluster(images)) == len(images) == 512


def test_outcomes_differ_between_noise_seeds():
    model = random_model()
    condition, _ = make_batch(1, (3, 12, 12))
    found = [outcomes(model, "reset", condition, NoiseKey(1, seed), 4)[1] for seed in range(2)]
    assert len(cluster(torch.cat(found))) == 8
