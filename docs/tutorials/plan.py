"""# Plan a chain of six evaluations

A plan fixes every network call beforehand: the level that the network is told, the level that the call leads to, and the share of fresh noise. A call skips if its told level is below the level that the chain has reached. This tutorial writes plans by hand, compares them, and searches for a better one.
"""

# %%
import os

import numpy as np

import skipdiff_env
from skipdiff_env.images import bundled_images, make_pair

model = skipdiff_env.load_pretrained(os.environ.get("SKIPDIFF_TUTORIAL_MODEL", "natural-4x"))
sampler = skipdiff_env.SkipDiffSampler(model)
lpips, psnr = skipdiff_env.load_metric("lpips"), skipdiff_env.load_metric("psnr")
pairs = [make_pair(bundled_images(), i, scale=model.scale, image_size=128) for i in range(7)]

# %%
# We compare three plans with six evaluations: DDIM at evenly spaced levels, the same levels with fresh noise, and a plan that descends faster and skips: at level 14, it tells the network that the level is 11.

# %%
plans = {
    "DDIM": "100>83>67>50>33>17>0 eta 0",
    "fresh noise": "100>83>67>50>33>17>0 eta 1",
    "with a skip": "100>57>27>14|11>5>2>0 eta 0|1",
}


def judge(policy) -> str:
    made = np.stack([sampler(pair.lr, policy=policy, seed=0).images[0] for pair in pairs])
    originals = np.stack([pair.hr for pair in pairs])
    return f"LPIPS {lpips(made, originals).mean():.4f}, PSNR {psnr(made, originals).mean():.2f} dB"


for name, plan in plans.items():
    print(f"{name:12} {judge(plan)}")
print(f"start 7      {judge(7)}, in 16 evaluations")

# %%
# DDIM without noise has the lowest LPIPS of these, but also the lowest PSNR. `find_plan` uses Optuna to try plans that have a given number of calls, and stops unpromising trials early. It looks for a low LPIPS, but with a penalty for plans that are clearly worse than the model's own start, here 6, in PSNR, SSIM or smooth areas, so the plan that it finds may have a higher LPIPS than one of the plans above. A few trials on seven pictures are only a demonstration: for real use, choose plans on many pictures that are not in your test set (`skipdiff find-plan` keeps a study that can be resumed).

# %%
found = skipdiff_env.find_plan(
    model,
    bundled_images(),
    evaluations=6,
    metric="lpips",
    image_size=128,
    trials=int(os.environ.get("SKIPDIFF_TUTORIAL_TRIALS", 25)),
)
print(found.plan)
print(f"found        {judge(found.plan)}")
