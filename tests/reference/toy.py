"""A stand-in for a frozen model: nonlinear, instant, with a twin in float64; and how to drive a process."""

import numpy as np
import torch

from skipdiff_env.diffusion import NoiseKey, NoiseSchedule

SIZE = (3, 8, 12)


class Toy:
    """A cheap nonlinear "network" that looks at its neighbours, at c and at the level."""

    scale = 4

    def __init__(self, residual: float | None = None) -> None:
        self.schedule, self.residual = NoiseSchedule.cosine(), residual
        self.calls: list[torch.Tensor] = []

    def predict(self, latent, condition, noise_level):
        self.calls.append(noise_level.clone())
        level = noise_level[:, None, None, None]
        latent = latent / (self.residual or 1)
        mixed = level * latent + 0.3 * torch.roll(latent, (1, 2, 3), (1, 2, 3)) + 0.5 * condition
        return torch.tanh(mixed - 0.2 * level)

    def to_latent(self, image, condition):
        return image if self.residual is None else self.residual * (image - condition)

    def predict64(self, latent, condition, level):
        latent = latent / (self.residual or 1)
        mixed = level * latent + 0.3 * np.roll(latent, (1, 2, 3), (0, 1, 2)) + 0.5 * condition
        return np.tanh(mixed - 0.2 * level)

    def to_latent64(self, image, condition):
        return image if self.residual is None else self.residual * (image - condition)


def make_batch(rows, size=SIZE, seed=0):
    rng = np.random.default_rng(seed)
    condition = torch.from_numpy(rng.uniform(-1, 1, (rows, *size))).float()
    keys = [NoiseKey(int(rng.integers(2**60)), int(rng.integers(2**60))) for _ in range(rows)]
    return condition, keys


def drive(process, condition, keys, actions):
    """The whole process; actions (rows, F - 1). Returns the final state and the latents decided at."""
    state, seen = process.start(condition, keys), []
    for column in np.asarray(actions).reshape(len(keys), process.decisions).T:
        seen.append(state.latent)
        state = process.step(state, column)
    return process.finish(state), seen
