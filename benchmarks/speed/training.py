"""Measures the speed of training, its share of the machine's matrix peak, and the parts of each step."""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from skipdiff_env.diffusion import UNet
from skipdiff_env.training import Recipe, load_recipe
from skipdiff_env.training.data.bank import ImageBank
from skipdiff_env.training.distributed import World, training_device
from skipdiff_env.training.run.log import Progress, RunLog
from skipdiff_env.training.trainers.base import BatchMaker, Trainer

T = TypeVar("T")


def training_speed(
    recipe: str = "natural-4x", steps: int = 10, device: str = "auto", images: int = 64
) -> dict[str, float]:
    """Train on random images for a few steps, and measure the median step.

    Args:
        recipe: a shipped recipe's name, or a YAML file.
        steps: number of measured steps, after two unmeasured ones.
        device: device to train on.
        images: number of random images of the recipe's size in memory.

    Returns:
        ``images_per_second``; ``peak_share``, the rate of the network's arithmetic (the backward pass counts
        twice the forward pass) divided by that of a plain matrix product in the same type and run;
        ``peak_tflops``; ``overhead_share``, the share of the step that making batches and writing a log line
        after every step takes.
    """
    place = training_device(device)
    loaded = load_recipe(recipe, place.type == "cuda")
    pixels = np.random.default_rng(0).integers(0, 256, (images, *2 * [loaded.model.image_size], 3), np.uint8)
    bank = ImageBank(list(pixels), place)
    trainer, batches = Trainer(loaded, place), BatchMaker(loaded, bank, place, World())
    progress = Progress(loaded.name, loaded.batch, io.StringIO())
    times: list[tuple[float, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        log = RunLog(Path(folder), 0, lambda _: None)

        def write(loss: torch.Tensor) -> None:
            progress.update(trainer.step, loss.item(), None, None)
            log.write({"step": trainer.step, "loss": loss.item(), "lr": loaded.optimiser.lr})

        for step in range(steps + 2):
            made, data = _timed(lambda: batches(step), place)  # noqa: B023
            result, update = _timed(lambda: trainer.update(made, loaded.optimiser.lr), place)  # noqa: B023
            _, logging = _timed(lambda: write(result[0]), place)  # noqa: B023
            times.append((data, update, logging))
        log.close()
    times = times[2:]
    step_seconds = statistics.median(sum(t) for t in times)
    overhead = statistics.median(
        (data + logging) / (data + update + logging) for data, update, logging in times
    )
    peak = matrix_peak(place)
    return {
        "images_per_second": loaded.batch / step_seconds,
        "peak_share": training_flops(loaded) * loaded.batch / step_seconds / peak,
        "peak_tflops": peak / 1e12,
        "overhead_share": overhead,
    }


def training_flops(recipe: Recipe) -> float:
    """Return the FLOPs of a crop's forward and backward pass; the backward pass counts twice the forward."""
    crop = recipe.data.crop
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        UNet(recipe.model.unet)(torch.zeros(1, 6, crop, crop), torch.ones(1))
    return 3 * counter.get_total_flops()


def matrix_peak(device: torch.device, repeats: int = 5) -> float:
    """Return the operations per second of a plain matrix product: bfloat16 on CUDA, float32 elsewhere."""
    side, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (1536, torch.float32)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = min(_timed(lambda: a @ b, device)[1] for _ in range(repeats + 1))
    return 2 * side**3 / seconds


def _timed(function: Callable[[], T], device: torch.device) -> tuple[T, float]:
    began = time.perf_counter()
    result = function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, time.perf_counter() - began
