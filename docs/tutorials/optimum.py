"""# The optimum and regret

How good is an agent? One yardstick is the best fixed start. Another is the best result that any agent could have reached on this picture with this noise. This optimum can be computed exactly, since there are few possible results.
"""

# %%
import os

import numpy as np

import skipdiff_env
from skipdiff_env.images import bundled_images

model = skipdiff_env.load_pretrained(os.environ.get("SKIPDIFF_TUTORIAL_MODEL", "natural-4x"))
picture = bundled_images()[1][:192, :192]

# %%
# Under `reset`, the paper's rule for skips, everything that was denoised before the last skip is discarded, so an episode with ten fine levels has exactly ten possible results. `find_optimum` makes all of them and computes no latent twice.

# %%
optimum = skipdiff_env.find_optimum(model, picture, noise_seed=0, metric="niqe")
print(optimum.calls, "network calls")
for outcome in optimum.outcomes:
    start = 1 + sum(action == 0 for action in outcome.actions)
    print(f"start {start:2}: reward {outcome.reward:.4f} in {outcome.evaluations} evaluations")

# %%
# The *regret* of an episode is the difference between the optimal reward and its own:

# %%
starts = {1 + sum(action == 0 for action in o.actions): o.reward for o in optimum.outcomes}
for start in (7, 10, 1):
    print(f"regret of start {start}: {optimum.regret(starts[start]):.4f}")

# %%
# How much of the optimum depends on the picture, and how much on the noise? We take the start that was best under the first noise seed, and try it under another:

# %%
other = skipdiff_env.find_optimum(model, picture, noise_seed=1, metric="niqe")
again = {1 + sum(action == 0 for action in o.actions): o.reward for o in other.outcomes}
best = max(starts, key=starts.get)
mean = np.mean(list(again.values()))
print(
    f"start {best} was best; under the other noise it is {again[best] / mean - 1:+.1%} from the mean of all starts"
)
print(f"and the best start there is {max(again, key=again.get)}")

# %%
# A single picture shows little. `python -m benchmarks ceilings` repeats this for many pictures, and finds that under 1/NIQE almost none of the optimum's advantage carries over to another noise seed; see [What agents learned](../agents.md).
