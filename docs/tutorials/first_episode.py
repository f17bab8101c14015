"""# A first episode

An episode produces one picture. At the last noise levels, you decide, level by level, whether to denoise or to skip. This tutorial plays an episode by hand and shows what each decision does.
"""

# %%
# The model is one of the shipped ones, and the pictures are bundled photographs. `render_mode="rgb_array"` lets us draw the episode.

# %%
import os

import gymnasium
from PIL import Image

import skipdiff_env

model = skipdiff_env.load_pretrained(os.environ.get("SKIPDIFF_TUTORIAL_MODEL", "natural-4x"))
env = gymnasium.make("SkipDiff-v0", model=model, crop="center", render_mode="rgb_array")

# %%
# `reset` picks a picture at random, shrinks it and makes the nine coarse jumps. With `options`, we choose the picture and the noise seed, so that we can play the same episode again.

# %%
latent, info = env.reset(options={"image": 1, "noise_seed": 0})
print("latent", latent.shape, "evaluations", info["evaluations"])

# %%
# Nine decisions follow. A skip costs nothing and lowers the level that the network is told, so the network treats the noise that is left as detail. Here, we skip at the first three levels and denoise at level 7 and below. This schedule is called *start 7*; in the paper's Table 5, it has the best NIQE and LPIPS.

# %%
done, level = False, 10
while not done:
    action = 1 if level > 7 else 0
    latent, reward, done, _, info = env.step(action)
    print(f"level {level}: {'skip' if action else 'denoise'}, evaluations {info['evaluations']}")
    level -= 1
print(f"reward {reward:.4f}, NIQE {info['metric']:.2f}, PSNR {info['psnr']:.2f} dB")

# %%
# The environment takes the last step itself, since it is never skipped. The reward is 1/NIQE of the finished 8-bit picture. The environment draws the episode:

# %%
Image.fromarray(env.render()).save("first_episode.webp", quality=80)

# %%
# ![The input, the result and the original, and the decisions below](first_episode.webp)
#
# The same picture, noise seed and actions always give the same result:

# %%
env.reset(options={"image": 1, "noise_seed": 0})
for action in (1, 1, 1, 0, 0, 0, 0, 0, 0):
    _, again, *_ = env.step(action)
print("the same reward:", again == reward)
