"""Independent float64 re-computation of SkipDiff's sampling: CSA, then FSR, one image at a time.

Written from the paper's text (Luo et al., AAAI 2024, Eqs. 8-14), not from the package: the posterior
of a jump comes from Bayes' rule as a product of two Gaussians, the levels are found by looping, and
nothing is batched, so that it shares no shortcut with what it checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

Predict = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
"""(latent, condition, √ᾱ) → x̂0 in image space; all (3, H, W) float64."""


def cosine_table(steps: int, s: float = 0.008) -> list[float]:
    """ᾱ_0 … ᾱ_T of Eq. 9 with β clipped at 0.999."""

    def f(t: int) -> float:
        return math.cos((t / steps + s) / (1 + s) * math.pi / 2) ** 2

    table = [1.0]
    for t in range(1, steps + 1):
        beta = min(1 - f(t) / f(t - 1), 0.999)
        table.append(table[-1] * (1 - beta))
    return table


def posterior(a_t: float, a_u: float, x0: np.ndarray, x_t: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean and variance of q(x_u | x_t, x_0) by Bayes' rule.

    Prior: x_u ~ N(√ᾱ_u x_0, 1 - ᾱ_u). Likelihood: x_t ~ N(√(ᾱ_t/ᾱ_u) x_u, 1 - ᾱ_t/ᾱ_u).
    """
    if a_u == 1.0:
        return x0, 0.0
    prior_variance, step_variance = 1 - a_u, 1 - a_t / a_u
    shrink = math.sqrt(a_t / a_u)
    variance = 1 / (1 / prior_variance + shrink * shrink / step_variance)
    mean = variance * (math.sqrt(a_u) * x0 / prior_variance + shrink * x_t / step_variance)
    return mean, variance


@dataclass
class Outcome:
    """What one image's run gave."""

    image: np.ndarray
    """x̂0 of the last evaluation."""
    evaluations: int
    x_s1: np.ndarray
    """The latent that CSA ended on."""
    seen: list[np.ndarray] = field(default_factory=list)
    """The latents at which the agent decided, levels F … 2."""


def run(
    predict: Predict,
    condition: np.ndarray,
    noise: Callable[[int, bool], np.ndarray],
    *,
    coarse_steps: int,
    fine_steps: int,
    actions: Sequence[int],
    skip_rule: str = "reset",
    rebuilt: bool = False,
    to_latent: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda image, condition: image,
    table: Sequence[float] | None = None,
) -> Outcome:
    """Enlarge one image.

    Args:
        noise: (t, again) → the noise with which level t is reached; level T is pure noise. ``again``
            tells that FSR comes to a level where CSA may have been, which happens if F > N.
        actions: F - 1 choices, 0 = denoise, 1 = skip.
        fine_steps: F; 0 ends with one jump from level N to 0 instead.
        rebuilt: whether the coarse levels come from Eq. 9 with S steps.
        to_latent: (image, condition) → what the chain is made of.
        table: ᾱ_0 … ᾱ_T; the cosine schedule with T = 100 unless given.
    """
    full = list(table) if table is not None else cosine_table(100)
    top = len(full) - 1
    width = top // coarse_steps
    coarse = cosine_table(coarse_steps) if rebuilt else [full[s * width] for s in range(coarse_steps + 1)]
    evaluations = 0

    def denoise(x: np.ndarray, a_t: float, a_u: float, reached: int) -> tuple[np.ndarray, np.ndarray]:
        nonlocal evaluations
        evaluations += 1
        image = predict(x, condition, math.sqrt(a_t))
        mean, variance = posterior(a_t, a_u, to_latent(image, condition), x)
        if variance:
            mean = mean + math.sqrt(variance) * noise(reached, in_fsr and reached >= width)
        return mean, image

    in_fsr = False
    x = noise(top, False)
    for s in range(coarse_steps, 1, -1):
        x, _ = denoise(x, coarse[s], coarse[s - 1], (s - 1) * width)
    x_s1 = x
    if fine_steps == 0:
        _, image = denoise(x, coarse[1], coarse[0], 0)
        return Outcome(image, evaluations, x_s1)
    assert len(actions) == fine_steps - 1
    u, seen, in_fsr = x_s1, [], True
    for t in range(fine_steps, 1, -1):
        seen.append(u)
        if actions[fine_steps - t] == 0:
            u, _ = denoise(u, full[t], full[t - 1], t - 1)
        elif skip_rule == "reset":
            u = x_s1
    _, image = denoise(u, full[1], full[0], 0)
    return Outcome(image, evaluations, x_s1, seen)
