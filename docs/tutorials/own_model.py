"""# A diffusion model of your own

Any object with `predict` and a `schedule` is a model. The one in this tutorial is not even a network, and yet everything works with it: the environment, the sampler, the optimum and plans. Such a model is a good way to test an idea, since its results are known in closed form.
"""

# %%
import gymnasium
import numpy as np

import skipdiff_env
from skipdiff_env.diffusion import NoiseSchedule

# %%
# Suppose that the pixels scatter about the bicubic enlargement $c$ with a standard deviation of a tenth. Then the best estimate of the picture, given a noisy latent, is a weighted sum of $c$ and the latent.

# %%


class Guess:
    """x_0 ~ N(c, 0.1²), so that x̂0 = E[x_0 | x_t] is linear."""

    schedule = NoiseSchedule.cosine(steps=100)
    scale = 4

    def predict(self, latent, condition, noise_level):
        a = noise_level[:, None, None, None]
        gain = a * 0.1**2 / (a**2 * 0.1**2 + 1 - a**2)
        return condition + gain * (latent - a * condition)


# %%
# An exact sampler would reproduce this standard deviation about $c$. The full chain gives a slightly smaller deviation, since the posterior of each step treats the model's estimate as exact and therefore adds too little noise. Each skip increases the deviation, since the noise that is left is treated as detail:

# %%
sampler = skipdiff_env.SkipDiffSampler(Guess(), coarse_steps=10)
grey = np.full((48, 48, 3), 128, np.uint8)
for policy in ("denoise", 7, 4, 1):
    out = sampler(grey, policy=policy, seed=0)
    print(f"{policy!s:8} deviation {out.x0.std():.4f} in {out.trace[0].evaluations} evaluations")
whole = skipdiff_env.SkipDiffSampler(Guess(), coarse_steps=100, fine_steps=0)
print(f"chain    deviation {whole(grey, seed=0).x0.std():.4f} in 100 evaluations")

# %%
# The environment takes the same object:

# %%
env = gymnasium.make("SkipDiff-v0", model=Guess(), image_size=128, metric="psnr")
env.reset(seed=0)
for _ in range(9):
    *_, info = env.step(1)
print(f"PSNR {info['metric']:.2f} dB after skipping all that may be skipped")
