"""CCSR's and AddSR's chains: levels, evaluations, conditions, and the results once more in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skipdiff_env import SkipDiffError, SkipDiffSampler
from skipdiff_env.chains import CCSR, AddSR, FewSteps, State, parse
from skipdiff_env.diffusion import (
    NoiseKey,
    NoiseSchedule,
    SkipProcess,
    keyed_normal,
    load_pretrained,
    random_model,
    tiny_config,
)

T100 = NoiseSchedule.cosine()
KEYS = [NoiseKey(3, 5), NoiseKey(4, 5)]
CONDITION = torch.from_numpy(np.random.default_rng(0).uniform(-0.8, 0.8, (2, 3, 8, 8)).astype(np.float32))
LR = np.random.default_rng(1).integers(0, 256, (2, 8, 10, 3), dtype=np.uint8)


class Linear:
    """x̂0 = 0.3 x_t + 0.5 c + 0.1 √ᾱ, of which everything can be computed by hand."""

    scale, coarse_levels = 4, "strided"

    def __init__(self, k: float | None = None, schedule: NoiseSchedule = T100) -> None:
        self.k, self.schedule = k, schedule
        self.seen: list[tuple[np.ndarray, float]] = []

    def condition(self, lr: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def to_latent(self, image: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return image if self.k is None else self.k * (image - condition)

    def predict(self, latent: torch.Tensor, condition: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        self.seen.append((condition.double().numpy(), level[0].item()))
        return 0.3 * latent + 0.5 * condition + 0.1 * level[:, None, None, None]


def draw(number: int) -> np.ndarray:
    return keyed_normal(KEYS, [number] * 2, CONDITION.shape[1:]).double().numpy()


def alpha_bar(t: float) -> float:
    """√ᾱ is linear between the levels of the table."""
    below = min(int(t), 99)
    low, high = np.sqrt(T100.alpha_bar[below]), np.sqrt(T100.alpha_bar[below + 1])
    return float((low + (high - low) * (t - below)) ** 2)


def posterior(at: float, au: float, x0: np.ndarray, xt: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Bayes' rule, as in tests/reference, which has no batches."""
    prior, step, shrink = 1 - au, 1 - at / au, math.sqrt(at / au)
    variance = 1 / (1 / prior + shrink * shrink / step)
    return variance * (math.sqrt(au) * x0 / prior + shrink * xt / step) + math.sqrt(variance) * noise


def test_ccsr_is_one_evaluation_at_t_then_uniform_steps_from_t_max_towards_t_min() -> None:
    assert CCSR(1).levels(T100).tolist() == [100]
    assert CCSR(2).levels(T100) == pytest.approx([100, 200 / 3])
    levels = CCSR(16).levels(T100)
    # 45 nominal steps: of T/45 each, 15 evaluations from t_max on, and t_min would be the 16th
    assert levels[1:] == pytest.approx([100 * n / 45 for n in range(30, 15, -1)])


def test_other_bounds_of_ccsr() -> None:
    assert CCSR(3, 0.5, 0.1).levels(T100) == pytest.approx([100, 50, 30])
    assert CCSR(2, t_max=0.8).levels(T100) == pytest.approx([100, 80])


@pytest.mark.parametrize(
    ("chain", "written"),
    [
        (CCSR(2), "ccsr:2"),
        (CCSR(4, 0.5), "ccsr:4,t_max=0.5"),
        (CCSR(4, 0.7, 0.1), "ccsr:4,t_max=0.7,t_min=0.1"),
        (AddSR(4), "addsr:4"),
        (AddSR(3, 0.0), "addsr:3,self_refinement=0.0"),
    ],
)
def test_a_chain_is_written_as_it_is_read(chain: FewSteps, written: str) -> None:
    assert chain.settings == {"policy": written} and str(chain) == written
    assert parse(written, random_model()) == chain


def test_addsr_takes_its_student_s_levels() -> None:
    expected = {1: [100], 2: [100, 50], 3: [100, 75, 25], 4: [100, 75, 50, 25]}
    for steps, levels in expected.items():
        assert AddSR(steps).levels(T100).tolist() == levels
    assert AddSR(4).levels(T100.respaced(4)).tolist() == [4, 3, 2, 1]
    assert AddSR(4).signals(T100.respaced(4)) == pytest.approx(AddSR(4).signals(T100))


@settings(max_examples=15, deadline=None)
@given(steps=st.integers(1, 60), top=st.sampled_from([4, 20, 100]))
def test_ccsr_runs_at_any_number_of_steps(steps: int, top: int) -> None:
    model = Linear(schedule=NoiseSchedule.cosine(top))
    seen: list[int] = []
    final = CCSR(steps)(model, CONDITION, KEYS, lambda s: seen.append(int(s.level[0])))
    assert final.evaluations.tolist() == [steps, steps] and len(model.seen) == len(seen) == steps
    assert final.levels == (top, *seen) and seen[-1] == 0 and seen == sorted(seen, reverse=True)
    assert final.actions.shape == (2, 0)
    signals = [level for _, level in model.seen]
    assert signals == sorted(signals) and torch.isfinite(final.x0).all()


@pytest.mark.parametrize("k", [None, 5.0])
def test_ccsr_in_float64(k: float | None) -> None:
    c = CONDITION.double().numpy()

    def predict(x: np.ndarray, a: float) -> np.ndarray:
        return 0.3 * x + 0.5 * c + 0.1 * math.sqrt(a)

    def clean(image: np.ndarray) -> np.ndarray:
        return image if k is None else k * (image - c)

    levels = [200 / 3, 50 + 50 / 9, 400 / 9]
    alphas = [alpha_bar(t) for t in levels]
    x0 = predict(draw(100), T100.alpha_bar[100])
    x = math.sqrt(alphas[0]) * clean(x0) + math.sqrt(1 - alphas[0]) * draw(201)
    for i in range(2):
        x = posterior(alphas[i], alphas[i + 1], clean(predict(x, alphas[i])), x, draw(202 + i))
    expected = predict(x, alphas[2])
    states: list[State] = []
    final = CCSR(4)(Linear(k), CONDITION, KEYS, states.append)
    assert np.allclose(final.x0.numpy(), expected, atol=1e-5)
    assert np.allclose(states[-1].latent.numpy(), clean(expected), atol=1e-4)
    assert [s.evaluations.tolist() for s in states] == [[n, n] for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("k", [None, 5.0])
@pytest.mark.parametrize("w", [0.0, 0.5, 0.8])
def test_addsr_refines_its_condition_by_its_own_prediction(k: float | None, w: float) -> None:
    c = CONDITION.double().numpy()
    model = Linear(k)
    final = AddSR(4, w)(model, CONDITION, KEYS)
    x, used = draw(100), c
    for i, (t, u) in enumerate(((100, 75), (75, 50), (50, 25), (25, 0))):
        a = T100.alpha_bar[t]
        assert np.allclose(model.seen[i][0], used, atol=1e-5) and model.seen[i][1] == pytest.approx(a**0.5)
        x0 = 0.3 * x + 0.5 * used + 0.1 * math.sqrt(a)
        if u:
            refined = w * x0 + (1 - w) * c
            if k is not None:  # the latent is k (image - condition): what it says of the image stays
                x = x + math.sqrt(a) * k * (used - refined)
            target = x0 if k is None else k * (x0 - refined)
            x, used = posterior(a, T100.alpha_bar[u], target, x, draw(201 + i)), refined
    assert np.allclose(final.x0.numpy(), x0, atol=1e-5)
    if w == 0.5:
        first = 0.3 * draw(100) + 0.5 * c + 0.1 * math.sqrt(T100.alpha_bar[100])
        assert np.allclose(model.seen[1][0], (first + c) / 2, atol=1e-5)


def test_every_chain_begins_with_the_x_t_of_csa() -> None:
    model = random_model(tiny_config(target="residual", residual_scale=5.0))
    process = SkipProcess(model, 1, 0)
    expected = process.finish(process.start(CONDITION, KEYS)).x0
    assert torch.equal(AddSR(1)(model, CONDITION, KEYS).x0, expected)
    assert torch.equal(CCSR(1)(model, CONDITION, KEYS).x0, expected)


@pytest.mark.parametrize(("policy", "evaluations"), [(CCSR(1), 1), ("ccsr", 2), (CCSR(16), 16), ("addsr", 4)])
def test_the_sampler_runs_chains_where_a_policy_stands(policy: object, evaluations: int) -> None:
    model = random_model(tiny_config(target="residual", residual_scale=5.0))
    seen: list[int] = []
    out = SkipDiffSampler(model)(
        LR, policy=policy, seed=[1, 2], callback=lambda s: seen.append(int(s.level[0]))
    )  # type: ignore[arg-type]
    for trace in out.trace:
        assert trace.evaluations == evaluations and trace.actions == []
        assert trace.levels == [100, *seen] and trace.levels[-1] == 0
    again = SkipDiffSampler(model)(LR[1], policy=policy, seed=2)  # type: ignore[arg-type]
    assert np.abs(again.images[0].astype(int) - out.images[1]).max() <= 1


def test_bad_requests_are_named() -> None:
    for make, words in (
        (lambda: CCSR(0), "steps=0 must be a whole number of at least 1"),
        (lambda: AddSR(5), "from 1 to 4"),
        (lambda: AddSR(0), "from 1 to 4"),
        (lambda: AddSR(2, 1.5), "self_refinement=1.5 must be a number from 0 to 1"),
        (lambda: CCSR(2, 0.5, 0.5), "t_max=0.5 must be above t_min=0.5"),
        (lambda: CCSR(2, 1.5), "t_max=1.5 must be a number from 0 to 1"),
    ):
        with pytest.raises(SkipDiffError, match=words):
            make()


@pytest.mark.slow
def test_the_shipped_model_gets_by_with_sixteen_evaluations_of_ccsr() -> None:
    from skipdiff_env.images import bundled_images, shrink
    from skipdiff_env.metrics import psnr_y

    hr = bundled_images()[0][:128, :128]
    lr = shrink(hr, 4)
    out = SkipDiffSampler(load_pretrained("natural-4x", "cpu"))(lr, policy=CCSR(16))
    bicubic = SkipDiffSampler(random_model())  # for its condition alone
    enlarged = bicubic.model.condition(torch.from_numpy(lr).permute(2, 0, 1)[None])
    plain = ((enlarged + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert psnr_y(out.images, hr[None])[0] > psnr_y(plain, hr[None])[0] - 1


def test_a_class_is_no_chain() -> None:
    with pytest.raises(SkipDiffError, match="unknown policy <class"):
        parse(CCSR, random_model())  # type: ignore[arg-type]
