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
    """Decide how far each network call of a super-resolution diffusion model leads.

    ## Description

    A frozen conditional diffusion model enlarges a low-resolution image (LR) by a chain of network calls
    from level T, pure noise, down to level 0. SkipDiff-v0 fixes most of the chain and leaves only the
    decisions at its end. Here each call is a decision, so an agent can spend a handful of calls where they
    matter. A call from level r to level u estimates the picture, x0, and moves the latent to level u by a
    step of DDIM. In a *skip*, the network is told a lower level than the one reached, and treats the excess
    noise as detail.

    The model never changes, all noise is determined by the image and a noise seed, and the metric scores
    the 8-bit image that would be saved.

    ## Action Space

    `actions="jump"`: `Discrete(n)`, the level that the call leads to, one of the n levels from the highest
    down to 0. The network is told the level reached, and eta is 0 (no new noise).

    `actions="full"`: `Discrete(9 n)`. Action a = (3 n) told + 3 next + eta, with told in 0 ... 2 (the level
    reached, three quarters of it or half of it), next as above, and eta in 0 ... 2 (0, 0.5 or 1).

    `episode="plan"`: `Discrete(number of plans)`, one of the plans; the shipped ones are ordered by their
    number of calls. The episode consists of this one decision.

    A call must lead below the told level, and the last call that the budget allows must lead to 0.
    `info["action_mask"]` and `action_masks()` say which actions are allowed; sb3-contrib's MaskablePPO uses
    the latter. An action that is not allowed is replaced by the call to the next lower level, or to 0 if it
    is the last call.

    ## Observation Space

    `observation="latent"`: `Box(-20, 20, (3, H, W), float32)`, the latent. With `observation_size=n`, it is
    resized (antialiased bicubic) to (3, n, n).

    `observation="dict"`:

    | Key | Space | Meaning |
    |---|---|---|
    | `latent` | `Box(-20, 20, (3, H, W), float32)` | as above |
    | `x0` | `Box(-20, 20, (3, H, W), float32)` | newest estimate, -1 ... 1; at first the condition |
    | `change` | `Box(-20, 20, (3, H, W), float32)` | what the last decision changed in `x0` |
    | `lr` | `Box(0, 1, (3, H/scale, W/scale), float32)` | the LR image, before any restorer |
    | `level` | `Box(0, T, (1,), float32)` | the level reached |
    | `evaluations` | `Box(0, budget, (1,), float32)` | network calls so far |
    | `budget` | `Box(0, budget, (1,), float32)` | network calls left |
    | `step_cost` | `Box(low, high, (1,), float32)` | this episode's price, if `step_cost` is a range |

    ## Rewards

    The reward of a decision is what it adds to -ln M, minus `step_cost` for each of its network calls. M is
    the metric of the current x0 (or its inverse, if high values of the metric are good). Before the first
    call, -ln M counts as 0, so the rewards of an episode add up to -ln M of its result, minus the price of
    its calls. While M cannot be computed, a decision adds nothing; if it cannot be computed at the end, the
    result is worth 0 and `info["reward_valid"]` is False. With `step_cost=(low, high)`, each episode draws
    its own price between the two, log-uniformly.

    ## Starting State

    An image is drawn from `images`, cropped to `image_size` and shrunk to LR. The latent is pure noise at
    level T, and no call has been made. `reset(seed=...)` and `reset(options={"image": i, "noise_seed": n,
    "step_cost": c})` work as in SkipDiff-v0.

    ## Episode End

    The episode ends with the call that leads to level 0. It is truncated only by `max_episode_steps`. If that
    is not given, the spec states the maximum number of decisions, so an environment that `gymnasium.make`
    makes from the spec sets both `terminated` and `truncated` if an episode takes that many decisions; a
    batch never sets both.

    ## Arguments

    ```python
    gymnasium.make("SkipDiff-v1", model="natural-4x", images="photos/", budget=6, step_cost=0.01)
    ```

    | Argument | Default | Meaning |
    |---|---|---|
    | `model` | `"natural-4x"` | a name, folder, hub id or model object (`skipdiff_env.diffusion.interop`) |
    | `images` | `None` | a folder, `.tar`, file, list or torch Dataset; None: the bundled photographs |
    | `metric` | `"lpips"` | a name, a function, or names with weights: `{"lpips": 1, "niqe-full": 0.5}` |
    | `actions` | `"jump"` | what is decided about a call, see Action Space: `"jump"` or `"full"` |
    | `episode` | `"call"` | `"call"`: one decision per network call; `"plan"`: one decision per episode |
    | `levels` | `None` | levels besides 0 that calls may lead to; None: up to 18 (`env.unwrapped.levels`) |
    | `plans` | `None` | plans to choose from, as text; None: the model's own |
    | `budget` | `None` | maximum number of network calls in an episode; None: set by the levels or plans |
    | `noise` | `"fresh"` | `"fresh"`: a new noise seed in each episode; `"fixed"`: always noise seed 0 |
    | `observation` | `"latent"` | `"latent"` or `"dict"` |
    | `observation_size` | `None` | side of the observed latent in pixels; None: not resized |
    | `image_size` | `None` | side of HR and SR in pixels; None: the model's, or 192 if `images` is None |
    | `crop` | `"random"` | where larger images are cropped: `"random"` or `"center"` |
    | `low_resolution` | `False` | whether `images` are LR images without originals |
    | `step_cost` | `0.0` | price of a network call, or a range (low, high) |
    | `return_image` | `False` | whether `info` holds the SR image |
    | `device` | `"auto"` | where the model and the metric run; `"auto"` takes CUDA if it is available |
    | `render_mode` | `None` | `"rgb_array"`, `"human"` (needs pygame) or None |

    `gymnasium.make_vec("SkipDiff-v1", num_envs=n, ...)` takes the same arguments and runs n episodes as
    one batch; see `SkipDiffusionCallVectorEnv`.

    ## The optimum

    `skipdiff_env.find_optimal_plan(model, image, noise_seed, metric, budget=4)` tries every sequence of calls
    that the budget allows. The method `regret(reward, price)` of its result gives the best return minus
    `reward`, the return of an episode.

    ## Info

    `reset` and every step return the same keys, with the same types and shapes:

    | Key | Type | Meaning |
    |---|---|---|
    | `evaluations` | `int` | network calls of this episode so far |
    | `calls` | float32 (budget, 3) | told level, next level and eta of each call; -1 for those to come |
    | `action_mask` | int8 (actions,) | 1 for the actions that are allowed next |
    | `image` | `int` | index of the image; its name is `env.unwrapped.source.name(index)` |
    | `noise_seed` | `int` | the noise seed, which together with `image` determines the episode |
    | `step_cost` | `float` | this episode's price of a network call |
    | `metric` | `float` | the metric of the current x0, NaN if not computable; -1 before the first call |
    | `reward_valid` | `bool` | whether M of the result gave a reward; False before the end |
    | `psnr`, `ssim` | `float` | on luma (BT.601), PSNR in dB; NaN if not computable, -1 before the end |
    | `sr_image` | uint8 (H, W, 3) | the result, only with `return_image`; 0 before the end |

    ## Version History

    * v1: every network call is a decision; SkipDiff-v0 is the paper's problem
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
        """The process that makes the calls; its model is ``process.model``."""
        return self._episodes.process

    @property
    def levels(self) -> Sequence[float]:
        """The levels that calls may lead to, in the order of the actions."""
        return self._episodes.levels

    def action_masks(self) -> np.ndarray:
        """Return a mask of the actions that are allowed next, bool (actions,)."""
        return self._episodes.books.mask[0].astype(np.bool_)
