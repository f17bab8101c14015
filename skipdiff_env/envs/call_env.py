"""SkipDiff-v1, one episode at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from ..diffusion import CallProcess, DiffusionModel
from .call_episodes import CallEpisodes
from .options import CallOptions
from .single import SceneEnv


class SkipDiffusionCallEnv(SceneEnv):
    """Decide every network call of a super-resolution diffusion model: how far each one leads.

    ## Description

    A frozen conditional diffusion model enlarges a low-resolution image (LR) by a chain of network calls
    from level T, pure noise, down to level 0. SkipDiff-v0 fixes most of the chain and leaves ten decisions
    at its end; here each call is a decision, so that an agent can spend a handful of calls where they
    matter. A call from level r to level u estimates the picture, x0, and moves the latent to level u by a
    step of DDIM. A *skip* tells the network a lower level than the one that was reached: what noise is left
    then counts as detail.

    The model never changes, all noise follows from the image and a noise seed, and the metric scores the
    8-bit image that would be saved.

    ## Action Space

    `actions="jump"`: `Discrete(n)`, the level that the call leads to, one of `levels`, from the highest down
    to 0. The network is told the level that was reached, and eta is 0 (no new noise).

    `actions="full"`: `Discrete(9 n)`. Action a = (3 n) told + 3 next + eta, with told in 0 ... 2 (the level
    that was reached, three quarters or half of it), next as above, and eta in 0 ... 2 (0, 0.5 or 1).

    `episode="plan"`: `Discrete(number of plans)`, one of the plans, fewest calls first. The episode is this
    one decision.

    A call must lead below the level that is told, and the last one that the budget allows must lead to 0.
    `info["action_mask"]` and `action_masks()` say which actions do; sb3-contrib's MaskablePPO asks the
    latter. An action that does not is taken for the call to the next level below, or to 0 if it is the
    last.

    ## Observation Space

    `observation="latent"`: `Box(-20, 20, (3, H, W), float32)`, the latent. With `observation_size=n` it is
    resized (antialiased bicubic) to (3, n, n).

    `observation="dict"`:

    | Key | Space | Meaning |
    |---|---|---|
    | `latent` | `Box(-20, 20, (3, H, W), float32)` | as above |
    | `x0` | `Box(-20, 20, (3, H, W), float32)` | its newest estimate, -1 ... 1; at first bicubic |
    | `change` | `Box(-20, 20, (3, H, W), float32)` | what the last decision changed in it |
    | `lr` | `Box(0, 1, (3, H/scale, W/scale), float32)` | the LR image that conditions the model |
    | `level` | `Box(0, T, (1,), float32)` | the level that was reached |
    | `evaluations` | `Box(0, budget, (1,), float32)` | network calls so far |
    | `budget` | `Box(0, budget, (1,), float32)` | network calls that are left |
    | `step_cost` | `Box(low, high, (1,), float32)` | this episode's, if `step_cost` is a range |

    ## Rewards

    Each decision is paid what it gains in -ln M, and pays `step_cost` for each of its network calls. M is
    the metric of x0 as it stands (its inverse, if high values of the metric are good), and before the first
    call -ln M counts as 0, so that the rewards of an episode add up to -ln M of its result, less the price
    of its calls. While M cannot be computed nothing is gained or lost; if it cannot at the end, the result
    is worth 0 and `info["reward_valid"]` is False. With `step_cost=(low, high)` each episode draws its own
    price between the two, log-uniformly.

    ## Starting State

    An image is drawn from `images`, cropped to `image_size`, and shrunk to LR; the latent is pure noise at
    level T. No call has been made. `reset(seed=...)` and `reset(options={"image": i, "noise_seed": n,
    "step_cost": c})` are those of SkipDiff-v0.

    ## Episode End

    With the call that leads to level 0. Nothing is truncated, unless `gymnasium.make` or `make_vec` is told
    a `max_episode_steps`.

    ## Arguments

    ```python
    gymnasium.make("SkipDiff-v1", model="natural-4x", images="photos/", budget=6, step_cost=0.01)
    ```

    | Argument | Default | Meaning |
    |---|---|---|
    | `model` | `"natural-4x"` | shipped model, folder, hub id, or object: `skipdiff_env.diffusion.interop` |
    | `images` | `None` | folder, `.tar`, file, list, torch Dataset; None: the bundled photographs |
    | `metric` | `"lpips"` | a name, a function, or names with weights: `{"lpips": 1, "niqe-full": 0.5}` |
    | `actions` | `"jump"` | what is decided of a call, see Action Space: `"jump"`, `"full"` |
    | `episode` | `"call"` | `"call"`: a decision a network call; `"plan"`: one in all |
    | `levels` | `None` | levels that calls may lead to, below T; None: 18, see below |
    | `plans` | `None` | plans to choose from, as text; None: the model's own |
    | `budget` | `None` | network calls of an episode, at most; None: as many as there are levels |
    | `noise` | `"fresh"` | `"fresh"`: a new noise seed each episode; `"fixed"`: noise seed 0 always |
    | `observation` | `"latent"` | `"latent"` or `"dict"` |
    | `observation_size` | `None` | side of the observed latent in pixels; None: as it is |
    | `image_size` | `None` | side of HR and SR in pixels; None: the model's, 192 if `images` is None |
    | `crop` | `"random"` | where larger images are cropped: `"random"` or `"center"` |
    | `low_resolution` | `False` | whether `images` are LR images that have no original |
    | `step_cost` | `0.0` | price of a network call, or a range (low, high) |
    | `return_image` | `False` | whether infos carry the SR image |
    | `device` | `"auto"` | where model and metric run: `"auto"` takes CUDA if there is one |
    | `render_mode` | `None` | `"rgb_array"`, `"human"` (needs pygame) or None |

    `gymnasium.make_vec("SkipDiff-v1", num_envs=n, ...)` takes the same arguments and runs n episodes as
    one batch, see `SkipDiffusionCallVectorEnv`.

    ## The optimum

    `skipdiff_env.find_optimal_plan(model, image, noise_seed, metric, budget=4)` plays every sequence of calls
    that the budget allows, and its `regret(reward, price)` is what an episode left on the table.

    ## Info

    The same keys, with the same types and shapes, in `reset` and in every step:

    | Key | Type | Meaning |
    |---|---|---|
    | `evaluations` | `int` | network calls of this episode so far |
    | `calls` | float32 (budget, 3) | level told, level led to, and eta of each call; -1 for those to come |
    | `action_mask` | int8 (actions,) | 1 for the actions that are allowed next |
    | `image` | `int` | index of the image; its name is `env.unwrapped.source.name(index)` |
    | `noise_seed` | `int` | what replays the episode, together with `image` |
    | `step_cost` | `float` | this episode's price of a network call |
    | `metric` | `float` | M of x0 as it stands, NaN if it cannot be computed; before the first call -1 |
    | `reward_valid` | `bool` | whether M of the result gave a reward; before the end False |
    | `psnr`, `ssim` | `float` | on Y of YCbCr (BT.601), PSNR in dB, NaN without original; before the end -1 |
    | `sr_image` | uint8 (H, W, 3) | the result, only with `return_image`; before the end 0 |

    ## Version History

    * v1: every network call is a decision; SkipDiff-v0 is the problem of the paper
    """

    scenes = CallEpisodes
    _episodes: CallEpisodes

    def __init__(
        self,
        model: str | os.PathLike[str] | DiffusionModel = "natural-4x",
        images: Any = None,
        metric: Any = "lpips",
        actions: Literal["jump", "full"] = "jump",
        episode: Literal["call", "plan"] = "call",
        levels: Sequence[float] | None = None,
        plans: Sequence[Any] | None = None,
        budget: int | None = None,
        noise: Literal["fresh", "fixed"] = "fresh",
        observation: Literal["latent", "dict"] = "latent",
        observation_size: int | None = None,
        image_size: int | None = None,
        crop: Literal["random", "center"] = "random",
        low_resolution: bool = False,
        step_cost: float | tuple[float, float] = 0.0,
        return_image: bool = False,
        device: str | torch.device = "auto",
        render_mode: Literal["rgb_array", "human"] | None = None,
    ) -> None:
        self._open(CallOptions.pick(locals()), render_mode)

    @property
    def process(self) -> CallProcess:
        """What makes the calls, and through it ``process.model``."""
        return self._episodes.process

    @property
    def levels(self) -> Sequence[float]:
        """The levels that calls may lead to, in the order of the actions."""
        return self._episodes.levels

    def action_masks(self) -> np.ndarray:
        """Which actions are allowed next, bool (actions,)."""
        return self._episodes.books.mask[0].astype(np.bool_)
