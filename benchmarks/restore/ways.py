"""The ways to enlarge that the tables of :mod:`.command` compare."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from skipdiff_env import SkipDiffError
from skipdiff_env.chains import Chain, default_for
from skipdiff_env.diffusion import FrozenModel, image_key
from skipdiff_env.images import read_image
from skipdiff_env.images.measure import measure
from skipdiff_env.images.photo import decode_photo
from skipdiff_env.upscale.choice import AUTO, choose_model

from ..measure.sampler import Picture, Sampler, conditions_of, each, enlarged, noise_of, pictures_of

BICUBIC = "bicubic"
SECONDS, ABOUT = "seconds.csv", "about.txt"
"""Files in a folder of another program's pictures: name, seconds and threads; a line about the program."""


def input_name(lr: np.ndarray) -> str:
    """Return the file name under which other programs find an input, uint8 (h, w, 3)."""
    return f"{image_key(lr):016x}.png"


def bicubic(model: FrozenModel) -> Sampler:
    """Make the sampler of bicubic enlargement."""

    def run(lr: np.ndarray, seed: int) -> Picture:
        began = time.perf_counter()
        (made,) = pictures_of(enlarged(model, [lr]))
        return Picture(made, 0, seconds=time.perf_counter() - began)

    return Sampler(BICUBIC, BICUBIC, each(run), frozenset())


def default_way(model: FrozenModel, label: str) -> Sampler:
    """Make the sampler that a model runs by default."""
    chain: Chain = default_for(model)
    settings = json.dumps(chain.settings, sort_keys=True, default=str)
    key = f"default@{hashlib.sha256(settings.encode()).hexdigest()[:12]}"

    def run(lr: np.ndarray, seed: int) -> Picture:
        began = time.perf_counter()
        final = chain(model, conditions_of(model, [lr]), noise_of([lr], [seed]))
        (made,) = pictures_of(final.x0)
        return Picture(made, int(final.evaluations[0]), seconds=time.perf_counter() - began)

    calls = frozenset((key, i) for i in range(chain.most_evaluations(model.schedule)))
    return Sampler(key, label, each(run), calls)


def other_program(name: str, folder: Path) -> Sampler:
    """Make a sampler that returns another program's results, from a folder with files of the inputs' names.

    Raises:
        SkipDiffError: on use, if the picture is missing or has another size.
    """
    times = _seconds(folder)

    def run(lr: np.ndarray, seed: int) -> Picture:
        file = folder / input_name(lr)
        if not file.is_file():
            raise SkipDiffError(f"{file} is missing: run the other program on all inputs first")
        made = read_image(file)
        if made.shape[0] % lr.shape[0] or made.shape[1] % lr.shape[1]:
            raise SkipDiffError(f"{file} is {made.shape[1]}x{made.shape[0]}: no multiple of its input's size")
        return Picture(np.array(made), 0, seconds=times.get(file.name, math.nan))

    return Sampler(name, name, each(run), frozenset())


def about_program(folder: Path) -> str:
    """Describe another program, by its version and threads for example; by default, by its folder's name."""
    file = folder / ABOUT
    said = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    return f"{folder.name} ({said})" if said else folder.name


def _seconds(folder: Path) -> dict[str, float]:
    file = folder / SECONDS
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8", newline="") as lines:
        return {name: float(seconds) for name, seconds, *_ in csv.reader(lines)}


def automatic(file: bytes, labels: Sequence[str]) -> str:
    """Return which of the models ``--model auto`` chooses for a photograph's file.

    Raises:
        SkipDiffError: if it is none of them.
    """
    chosen = choose_model(AUTO, lambda: measure(decode_photo(io.BytesIO(file)))).model
    if chosen not in labels:
        raise SkipDiffError(f"auto takes {chosen}: add that to --models, or leave auto out with --no-auto")
    return chosen
