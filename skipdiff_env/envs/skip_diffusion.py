"""SkipDiff-v0, one episode at a time."""

from __future__ import annotations

import os
from typing import Any, Literal

import torch

from ..diffusion import DiffusionModel, SkipProcess
from ..diffusion.refiner import RefinerSpec
from ..latent_cache import LatentCache
from .episodes import Episodes
from .options import Options
from .single import SceneEnv


class SkipDiffusionEnv(SceneEnv):
    """Decide which denoising steps of a super-resolution diffusion model are worth their time.

    ## Description

    A frozen conditional diffusion model enlarges a low-resolution image (LR) in T small denoising steps.
    SkipDiff (Luo, Xie, Qu, Fu, AAAI 2024) replaces most of them. *Coarse skip approximation* (CSA) takes
    S - 1 long jumps and ends at a latent x_S1. *Fine skip refinement* (FSR), which this environment plays,
    then passes through F fine levels. At all of them but the last, an agent chooses to denoise or to skip.

    The model never changes, all noise is determined by the image and a noise seed, and the metric scores
    the 8-bit image that would be saved.

    ## Action Space

    `Discrete(2)`, at the levels t = F ... 2, where u_t is the latent:

    | Action | Meaning | Next latent | Network evaluations |
    |---|---|---|---|
    | 0 | denoise | u_(t-1) drawn from the posterior of one step from u_t (Eq. 8) | 1 |
    | 1 | skip | x_S1 again (`skip_rule="reset"`, Eq. 14), or u_t unchanged (`"hold"`) | 0 |

    ## Observation Space

    `observation="latent"`: `Box(-20, 20, (3, H, W), float32)`, the latent u_t. With
    `observation_size=n`, it is resized (antialiased bicubic) to (3, n, n). The latents are noisy
    versions of the model's target: of the image in [-1, 1] or, for residual models, of the scaled detail
    layer k (HR - c), where HR is the original and c the model's condition, the bicubic enlargement of LR
    (restored first if the model has a restorer). They are clipped at +-20, a value that only noise of ten
    standard deviations would reach.

    `observation="dict"`:

    | Key | Space | Meaning |
    |---|---|---|
    | `latent` | `Box(-20, 20, (3, H, W), float32)` | as above |
    | `lr` | `Box(0, 1, (3, H/scale, W/scale), float32)` | the LR image, before any restorer |
    | `step` | `Discrete(F)` | number of decisions so far; the level is t = F - step |
    | `step_cost` | `Box(low, high, (1,), float32)` | this episode's price, if `step_cost` is a range |

    Stable-Baselines3 does not treat float images as an "image space": pass `normalize_images=False` and
    a features extractor of your own (its `check_env` says so in three warnings per image).

    ## Rewards

    Apart from step costs, the reward is 0 until the episode ends. Then it is 1/M if low values of the metric
    are good, and M otherwise, where M is the metric of the final image. If the score cannot be
    computed (NIQE of a flat image, M <= 0 where 1/M is needed, or a result that is not finite), the reward
    is 0 and `info["reward_valid"]` is False. NIQE reads whole blocks of 96 pixels from the top left and
    ignores the rest: of an image of 256 x 256 pixels it sees 192 x 192. Give an `image_size` that is a
    multiple of 96, or use `metric="niqe-full"`, which averages shifted crops so that every pixel counts.

    Each step costs `step_cost` times the number of evaluations that it made, whether or not the result has a
    score. The S - 1 evaluations of CSA take place in `reset` and cost nothing, since they are the same
    whatever the agent does. With `step_cost=(low, high)`, each episode draws its own price between the two,
    log-uniformly, so that one agent can learn to be fast or thorough as the price demands.

    ## Starting State

    An image is drawn from `images`, cropped to `image_size` and shrunk to LR. CSA runs from pure noise
    down to x_S1, which becomes the first latent u_F. `reset(seed=...)` seeds the choice of images and of
    noise seeds for this and all later episodes. With `noise="fixed"`, the noise seed is 0 in every
    episode. Each image then has a single crop and exactly F possible results under `reset`, or 2^(F-1)
    under `hold`, so there are as many different episodes as images.

    `reset(options={"image": i, "noise_seed": n})` starts the episode with this image and this noise seed. The
    random crop is a function of these two, so `info` holds all that is needed to replay an episode.
    Either option may be left out. `options={"step_cost": c}` sets the price of an episode.

    ## Episode End

    The episode ends after F - 1 decisions. The last call of `step` also makes the last denoising step 1 -> 0,
    which is never skipped, and returns `terminated=True` and the final latent (level 0). Episodes are
    truncated only by `max_episode_steps`. If it is not given, the spec states F - 1, so an environment that
    `gymnasium.make` makes from the spec sets both `terminated` and `truncated` at the end of an episode; a
    batch never sets both.

    ## Arguments

    ```python
    gymnasium.make("SkipDiff-v0", model="natural-4x", images="photos/", metric="lpips")
    ```

    | Argument | Default | Meaning |
    |---|---|---|
    | `model` | `"natural-4x"` | a name, folder, hub id or model object (`skipdiff_env.diffusion.interop`) |
    | `images` | `None` | a folder, `.tar`, file, list or torch Dataset; None: the bundled photographs |
    | `metric` | `"niqe"` | `"niqe"`, `"lpips"`, the name of any pyiqa metric, or a function |
    | `coarse_steps` | `10` | number of coarse steps S, a divisor of T |
    | `fine_steps` | `None` | number of fine levels F, 2 ... T; None: T/S |
    | `skip_rule` | `"reset"` | what a skip does, see Action Space: `"reset"` or `"hold"` |
    | `noise` | `"fresh"` | `"fresh"`: a new noise seed in each episode; `"fixed"`: always noise seed 0 |
    | `observation` | `"latent"` | `"latent"` or `"dict"` |
    | `observation_size` | `None` | side of the observed latent in pixels; None: not resized |
    | `image_size` | `None` | side of HR and SR in pixels; None: the model's, or 192 if `images` is None |
    | `crop` | `"random"` | where larger images are cropped: `"random"` or `"center"` |
    | `low_resolution` | `False` | whether `images` are LR images without originals |
    | `step_cost` | `0.0` | price of a network evaluation in units of reward, or a range (low, high) |
    | `return_image` | `False` | whether `info` holds the SR image |
    | `device` | `"auto"` | where the model and the metric run; `"auto"` takes CUDA if it is available |
    | `cache` | `None` | a `skipdiff_env.latent_cache.LatentCache`, see below |
    | `refiner` | `None` | `"own"` (the model's), name or folder of a model with a refiner, or a function |
    | `render_mode` | `None` | `"rgb_array"`, `"human"` (needs pygame) or None |

    For all that `images` and `metric` accept, see `skipdiff_env.images.open_source` and
    `skipdiff_env.metrics.load_metric`. `low_resolution` requires a metric that needs no reference.

    A `LatentCache` remembers latents and scores. If an image and a noise seed were played before, an episode
    needs no network call for latents that were denoised at the same levels. Environments with different
    metrics and skip rules may share a cache. A cache is worthwhile if episodes recur: with `noise="fixed"`,
    or when `reset` is given images and noise seeds.

    `gymnasium.make_vec("SkipDiff-v0", num_envs=n, ...)` takes the same arguments and runs n episodes as
    one batch; see `SkipDiffusionVectorEnv`.

    ## Info

    `reset` and every step return the same keys, with the same types and shapes:

    | Key | Type | Meaning |
    |---|---|---|
    | `evaluations` | `int` | network evaluations of this episode so far, including those of CSA |
    | `actions` | int8 (F - 1,) | the actions so far, and -1 for those still to come |
    | `image` | `int` | index of the image; its name is `env.unwrapped.source.name(index)` |
    | `noise_seed` | `int` | the noise seed, which together with `image` determines the episode |
    | `step_cost` | `float` | this episode's price per evaluation |
    | `metric` | `float` | M of the result, NaN if it cannot be computed; -1 before the end |
    | `reward_valid` | `bool` | whether M gave a reward; False before the end |
    | `psnr`, `ssim` | `float` | on luma (BT.601), PSNR in dB; NaN if not computable, -1 before the end |
    | `sr_image` | uint8 (H, W, 3) | the result, only with `return_image`; 0 before the end |

    ## Version History

    * v0: first version
    """

    scenes = Episodes
    _episodes: Episodes

    def __init__(
        self,
        model: str | os.PathLike[str] | DiffusionModel = "natural-4x",
        images: Any = None,
        metric: Any = "niqe",
        coarse_steps: int = 10,
        fine_steps: int | None = None,
        skip_rule: Literal["reset", "hold"] = "reset",
        noise: Literal["fresh", "fixed"] = "fresh",
        observation: Literal["latent", "dict"] = "latent",
        observation_size: int | None = None,
        image_size: int | None = None,
        crop: Literal["random", "center"] = "random",
        low_resolution: bool = False,
        step_cost: float | tuple[float, float] = 0.0,
        return_image: bool = False,
        device: str | torch.device = "auto",
        cache: LatentCache | None = None,
        refiner: RefinerSpec = None,
        render_mode: Literal["rgb_array", "human"] | None = None,
    ) -> None:
        self._open(Options.pick(locals()), render_mode)

    @property
    def process(self) -> SkipProcess:
        """The diffusion process; its model is ``process.model``."""
        return self._episodes.process
