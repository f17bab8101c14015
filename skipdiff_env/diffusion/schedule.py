"""Noise schedules and the posterior of a jump between any two levels.

Levels run from t = 0, the clean image with ``alpha_bar[0] = 1``, to T. All tables are float64: at level T of
the cosine schedule with T = 100, ``alpha_bar`` is 2.4e-7, too small for the posterior to be computed in
float32.

Sources: the cosine schedule is that of Nichol & Dhariwal 2021 (SkipDiff, Eq. 9), and the posterior is that of
Ho et al. 2020 (SkipDiff, Eqs. 8 and 10, which are :func:`jump` over one level and over a coarse step).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import SkipDiffError, whole_number

Float64 = NDArray[np.float64]

MAX_BETA = 0.999
"""Maximum noise variance of one step (Nichol & Dhariwal 2021), which clips only the topmost step."""

CoarseRule = Literal["strided", "rebuilt"]


@dataclass(frozen=True)
class Jump:
    """q(x_u | x_t, x_0) of a jump from level t down to level u: N(mean, std² I).

    ``mean = x0_coef * x0 + xt_coef * x_t``. All fields are float64 and have the same shape.
    """

    beta: Float64
    x0_coef: Float64
    xt_coef: Float64
    std: Float64


def jump(alpha_bar_t: ArrayLike, alpha_bar_u: ArrayLike, eta: ArrayLike = 1.0) -> Jump:
    """Compute the posterior of a jump between two cumulative signal levels, elementwise.

    Args:
        alpha_bar_t: ᾱ of the level that the jump leaves, in (0, 1).
        alpha_bar_u: ᾱ of the level that the jump reaches, in (ᾱ_t, 1]. At 1 (level 0), the jump gives
            exactly x_0, without noise.
        eta: η of DDIM (Song et al. 2021, Eqs. 12 and 16), 0 … 1: how much of the posterior's noise is fresh.
            At 1, this is the posterior itself; at 0, all noise is that of x_t.

    Raises:
        ValueError: if a jump does not lead towards less noise, or η is not from 0 to 1.
    """
    at, au = np.asarray(alpha_bar_t, np.float64), np.asarray(alpha_bar_u, np.float64)
    eta = np.asarray(eta, np.float64)
    if not np.all((at > 0) & (at < au) & (au <= 1)):
        raise ValueError("a jump must lead to less noise: 0 < alpha_bar_t < alpha_bar_u <= 1")
    if not np.all((eta >= 0) & (eta <= 1)):
        raise ValueError(f"eta = {eta} must be from 0 to 1")
    beta = 1 - at / au
    std = eta * np.sqrt((1 - au) / (1 - at) * beta)
    kept = np.sqrt(np.maximum(1 - au - std**2, 0) / (1 - at))  # of x_t's noise
    # At η = 1 both forms are equal, but the posterior's own form (Eq. 8) has less rounding error
    return Jump(
        beta=beta,
        x0_coef=np.where(eta == 1, np.sqrt(au) * beta / (1 - at), np.sqrt(au) - kept * np.sqrt(at)),
        xt_coef=np.where(eta == 1, np.sqrt(at / au) * (1 - au) / (1 - at), kept),
        std=std,
    )


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A table of ᾱ_t, t = 0 … T.

    Attributes:
        alpha_bar: ᾱ_t, float64 (T + 1,), strictly falling from exactly 1.
        config: the arguments that rebuild this schedule with :meth:`from_config`.
    """

    alpha_bar: Float64
    config: dict[str, Any]

    def __post_init__(self) -> None:
        table = self.alpha_bar
        if (
            table.ndim != 1
            or len(table) < 2
            or table[0] != 1
            or not np.all(np.diff(table) < 0)
            or table[-1] <= 0
        ):
            raise ValueError("alpha_bar must fall strictly from exactly 1 and stay above 0")
        table.setflags(write=False)

    @classmethod
    def cosine(cls, steps: int = 100, s: float = 0.008) -> NoiseSchedule:
        """Build the paper's schedule (Eq. 9): f(t) = cos²(((t/T + s)/(1 + s))·π/2), with β_t clipped at
        0.999."""
        f = np.cos((np.arange(steps + 1) / steps + s) / (1 + s) * np.pi / 2) ** 2
        betas = np.minimum(1 - f[1:] / f[:-1], MAX_BETA)
        return cls(np.r_[1.0, np.cumprod(1 - betas)], {"kind": "cosine", "steps": steps, "s": s})

    @classmethod
    def linear(cls, steps: int = 2000, beta_start: float = 1e-6, beta_end: float = 1e-2) -> NoiseSchedule:
        """Build a schedule with β rising linearly from ``beta_start`` to ``beta_end``, as in SR3
        checkpoints."""
        betas = np.linspace(beta_start, beta_end, steps)
        config = {"kind": "linear", "steps": steps, "beta_start": beta_start, "beta_end": beta_end}
        return cls(np.r_[1.0, np.cumprod(1 - betas)], config)

    @classmethod
    def from_betas(cls, betas: ArrayLike) -> NoiseSchedule:
        """Build any schedule from its T step variances β_1 … β_T, each in (0, 1)."""
        table = np.asarray(betas, np.float64)
        return cls(np.r_[1.0, np.cumprod(1 - table)], {"kind": "betas", "betas": table.tolist()})

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> NoiseSchedule:
        """Rebuild a schedule from ``{"kind": "cosine" | "linear" | "betas" | "respaced", **arguments}``."""
        arguments = dict(config)
        kind = arguments.pop("kind", None)
        builders: dict[Any, Callable[..., NoiseSchedule]] = {
            "betas": cls.from_betas,
            "cosine": cls.cosine,
            "linear": cls.linear,
            "respaced": lambda of, levels: cls.from_config(of).respaced(levels),
        }
        if kind not in builders:
            raise ValueError(f"unknown schedule kind {kind!r}: use one of {sorted(builders)}")
        try:
            return builders[kind](**arguments)
        except TypeError as error:
            raise ValueError(f"bad {kind} schedule {arguments}: {error}") from None

    def respaced(self, levels: int) -> NoiseSchedule:
        """Return the same path from image to noise in fewer steps, for networks that see the continuous
        level.

        √ᾱ is interpolated linearly at ``levels`` + 1 evenly spaced t = 0 … T. If ``levels`` divides T, these
        are levels of the full table.

        Raises:
            ValueError: unless 1 ≤ ``levels`` ≤ T.
        """
        if not isinstance(levels, int) or not 1 <= levels <= self.steps:
            raise ValueError(
                f"levels={levels!r} must be a whole number from 1 to {self.steps}, the schedule's T"
            )
        if levels == self.steps:
            return self
        table = self.alpha_bar_at(np.arange(levels + 1) * self.steps / levels)
        return type(self)(table, {"kind": "respaced", "levels": levels, "of": self.config})

    def alpha_bar_at(self, t: ArrayLike) -> Float64:
        """Compute ᾱ at levels t in 0 … T, whole or not; between whole levels, √ᾱ is interpolated linearly.

        At whole levels, the values are exactly those of the table.
        """
        levels = np.asarray(t, np.float64)
        below = np.floor(levels).astype(np.int64)
        between = np.interp(levels, np.arange(self.steps + 1), np.sqrt(self.alpha_bar)) ** 2
        return np.where(levels == below, self.alpha_bar[below], between)

    @property
    def steps(self) -> int:
        """T, the number of denoising steps in the full chain."""
        return len(self.alpha_bar) - 1

    def noise_level(self, t: ArrayLike) -> Float64:
        """Compute √ᾱ_t, the continuous level that the network is conditioned on (1 for the clean image,
        near 0 for noise)."""
        return np.sqrt(self.alpha_bar[np.asarray(t)])

    def jump(self, t: ArrayLike, u: ArrayLike) -> Jump:
        """Compute the posterior of a jump from level t to level u < t, elementwise over integer arrays."""
        return jump(self.alpha_bar[np.asarray(t)], self.alpha_bar[np.asarray(u)])

    def stride(self, coarse_steps: int) -> int:
        """Return N = T/S, the width of one coarse jump.

        Raises:
            SkipDiffError: if S does not divide T.
        """
        if self.steps % whole_number("coarse_steps", coarse_steps, 1, self.steps):
            raise SkipDiffError(
                f"coarse_steps={coarse_steps} must divide the schedule's {self.steps} levels "
                f"(for instance {[s for s in (1, 2, 5, 10, 20, 50) if self.steps % s == 0]})"
            )
        return self.steps // coarse_steps

    def coarse(self, coarse_steps: int, rule: CoarseRule = "strided") -> Float64:
        """Compute ᾱ at the coarse levels 0, N, 2N, …, T (Eqs. 11 and 12), float64 (S + 1,).

        ``strided`` takes them from the full table. ``rebuilt`` clips each coarse β at 0.999 once more, which
        is equivalent to rebuilding Eq. 9 with S steps. It changes ᾱ only at level T (for T = 100 and S = 10,
        from 2.43e-7 to 2.41e-5). Published SkipDiff checkpoints expect ``rebuilt``.
        """
        table = self.alpha_bar[:: self.stride(coarse_steps)]
        if rule == "strided":
            return table
        if rule != "rebuilt":
            raise ValueError(f"unknown coarse rule {rule!r}: use 'strided' or 'rebuilt'")
        betas = np.minimum(1 - table[1:] / table[:-1], MAX_BETA)
        return np.r_[1.0, np.cumprod(1 - betas)]
