"""Measures the parts of a training step, and how they depend on the type in which Muon orthogonalises.

A process in which torch and oneDNN may use only AVX2 stands in for a processor without instructions for
bfloat16.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from skipdiff_env.training import load_recipe
from skipdiff_env.training.data.bank import ImageBank
from skipdiff_env.training.distributed import World
from skipdiff_env.training.trainers.base import BatchMaker, Trainer
from skipdiff_env.training.trainers.optimiser import MuonAdamW, product_dtype

PARTS = ("data", "forward", "backward", "optimiser")
PROCESSORS = {"as it is": {}, "AVX2 alone": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}}
"""Environment variables of a process, by their name in tables."""
TYPES = ("bfloat16", "the faster")
"""Types in which Muon orthogonalises: torch.optim.Muon's, and ours."""
OVERRIDES = ("batch=16", "data.crop=64", "precision=float32")
"""Changes to the recipe: small crops, as on a laptop, in the type that every processor supports."""


class Stopwatch:
    """The seconds that functions took, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``function`` so that its seconds are added to those of ``name``."""

        def wrapped(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

        return wrapped


def measure(steps: int, recipe: str = "natural-4x", overrides: tuple[str, ...] = OVERRIDES) -> dict[str, Any]:
    """Time the parts of a step on one thread of this processor, by type; the types take turns.

    Returns:
        ``seconds``: for each of :data:`TYPES`, the medians of :data:`PARTS` and of the whole ``step``;
        ``images``: the batch size; ``faster``: the faster type.
    """
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    loaded = load_recipe(recipe, False, overrides)
    side = loaded.model.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (8, side, side, 3), np.uint8)
    trainer = Trainer(loaded, cpu)
    assert isinstance(trainer.optimiser, MuonAdamW)
    (muon,) = trainer.optimiser.muon.param_groups
    faster, watch = product_dtype(cpu), Stopwatch()
    batches = watch.timed("data", BatchMaker(loaded, ImageBank(list(pixels)), cpu, World()))
    trainer._loss = watch.timed("forward", trainer._loss)  # type: ignore[method-assign]
    trainer.optimiser.step = watch.timed("optimiser", trainer.optimiser.step)  # type: ignore[method-assign]
    types = dict(zip(TYPES, (torch.bfloat16, faster), strict=True))
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in TYPES}
    for step in range((steps + 1) * len(TYPES)):
        name = TYPES[step % len(TYPES)]
        muon["dtype"], watch.seconds = types[name], {}
        whole = watch.timed("step", lambda: trainer.update(batches(step), loaded.optimiser.lr))  # noqa: B023
        whole()
        rest = sum(watch.seconds[part] for part in ("data", "forward", "optimiser"))
        taken[name].append({**watch.seconds, "backward": watch.seconds["step"] - rest})
    medians = {
        name: {part: statistics.median(t[part] for t in times[1:]) for part in (*PARTS, "step")}
        for name, times in taken.items()
    }
    return {"seconds": medians, "images": loaded.batch, "faster": _name(faster)}


def measure_processors(steps: int) -> dict[str, dict[str, Any]]:
    """Run :func:`measure` in a process for each of :data:`PROCESSORS`."""
    code = f"import json; from benchmarks.speed.parts import measure; print(json.dumps(measure({steps})))"
    found = {}
    for name, setting in PROCESSORS.items():
        ran = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **setting},
            capture_output=True,
            text=True,
            check=True,
        )
        found[name] = json.loads(ran.stdout.splitlines()[-1])
    return found


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
