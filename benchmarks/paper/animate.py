"""Makes the pictures of the README and the manual: a photograph before and after enlargement, and
animated episodes.

    python -m benchmarks animate [--model NAME]

Shrinks one bundled photograph and enlarges it as ``skipdiff upscale`` does with the model
(``before-after.webp``). Plays an episode on another photograph in ``SkipDiff-v0`` with the model's own start
(``skipdiff-v0.webp``), and one in ``SkipDiff-v1`` with six calls at evenly spaced levels
(``skipdiff-v1.webp``). The noise seed is 0. The pictures go into ``benchmarks/results/<model>/``.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterable
from pathlib import Path

import gymnasium
import numpy as np
from PIL import Image

from skipdiff_env import SkipDiffSampler, load_pretrained
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.envs import CALL_ENV_ID, ENV_ID
from skipdiff_env.files import write_atomically
from skipdiff_env.images import make_pair, open_source
from skipdiff_env.policies import FixedStart
from skipdiff_env.upscale.compare import side_by_side

from ..measure.options import fixed_start
from ..measure.tables import RESULTS

WIDTH = 608
"""Width of an animation in pixels."""
FRAME, LAST = 500, 2500
"""Durations of a frame and of the last frame, in milliseconds."""
CALLS = 6
PHOTOGRAPH = 1
"""Number of the bundled photograph of the episodes: the cat."""
ENLARGED = 2
"""Number of the bundled photograph that is shown before and after: the cup of coffee."""
SIDE = 256
"""Side of the crop that is shown before and after, in pixels."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    parser.add_argument("--model", default="natural-4x", help="a shipped model's name or a model folder")
    parser.add_argument("--out", type=Path, default=RESULTS, help="results folder")


def run(args: argparse.Namespace) -> int:
    """Play the episodes, draw the pictures and write them."""
    model = load_pretrained(args.model)
    skips = gymnasium.make(ENV_ID, model=model, crop="center", render_mode="rgb_array")
    fine = skips.unwrapped.process.fine_steps  # type: ignore[attr-defined]
    calls = gymnasium.make(CALL_ENV_ID, model=model, crop="center", budget=CALLS, render_mode="rgb_array")
    assert isinstance(calls.action_space, gymnasium.spaces.Discrete)
    levels = calls.action_space.n * np.arange(1, CALLS + 1) / CALLS
    decided = {
        "skipdiff-v0": (skips, FixedStart(fixed_start(model), fine).actions),
        "skipdiff-v1": (calls, np.rint(levels).astype(int) - 1),
    }
    made = {name: animation(frames(*episode)) for name, episode in decided.items()}
    for name, picture in ({"before-after": before_after(model)} | made).items():
        path = args.out / model.name / f"{name}.webp"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, picture)
        print(path)
    return 0


def before_after(model: FrozenModel) -> bytes:
    """Make a WebP of the low-resolution input, its bicubic enlargement, and the result of the model."""
    pair = make_pair(open_source(), ENLARGED, scale=model.scale, image_size=SIDE)
    made = SkipDiffSampler(model)(pair.lr, seed=0)
    small = Image.fromarray(pair.lr)
    panels = {
        f"input, {small.width}x{small.height} pixels": small.resize((SIDE, SIDE), Image.Resampling.NEAREST),
        "bicubic": small.resize((SIDE, SIDE), Image.Resampling.BICUBIC),
        f"{model.name}, {made.trace[0].evaluations} evaluations": made.images[0],
    }
    file = io.BytesIO()
    sheet = side_by_side([(label, np.asarray(picture)) for label, picture in panels.items()])
    Image.fromarray(sheet).save(file, "WEBP", quality=88, method=6)
    return file.getvalue()


def frames(env: gymnasium.Env, actions: Iterable[int]) -> list[np.ndarray]:
    """Play an episode; return its rendered frames."""
    env.reset(options={"image": PHOTOGRAPH, "noise_seed": 0})
    seen = [env.render()]
    for action in actions:
        env.step(int(action))
        seen.append(env.render())
    return seen  # type: ignore[return-value]


def animation(pictures: list[np.ndarray]) -> bytes:
    """Encode an animated WebP that repeats endlessly."""
    height = round(WIDTH * pictures[0].shape[0] / pictures[0].shape[1])
    first, *others = (Image.fromarray(p).resize((WIDTH, height), Image.Resampling.LANCZOS) for p in pictures)
    file = io.BytesIO()
    first.save(
        file, "WEBP", save_all=True, append_images=others, duration=[FRAME] * len(others) + [LAST], loop=0,
        quality=70,
    )  # fmt: skip
    return file.getvalue()
