"""Measures Table 3: seconds and arithmetic per image of SkipDiff, policy included, and the full chain."""

from __future__ import annotations

import platform
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from skipdiff_env.chains import parse_skipdiff
from skipdiff_env.diffusion import FrozenModel, UNetConfig, random_model
from skipdiff_env.diffusion.model import ModelConfig
from skipdiff_env.policies.base import Policy
from skipdiff_env.training.distributed import World
from skipdiff_env.training.provenance import describe_hardware

from ..measure.records import read
from ..measure.tables import Report, Table
from ..speed.environment import Stopwatch
from ..speed.sampler import sampler_speed
from .published import COST

SIZE = 256
"""Side of the enlarged image in pixels, as in the paper's Table 3."""
AUTHORS = UNetConfig(image_size=160)
"""The network whose seconds the paper reports, according to the authors' file for ImageNet. It was built for
160 pixels, where no level is 16 pixels wide, so it has attention only in the middle, and 92.6 M weights. The
network for faces has 97.8 M."""
AUTHORS_NAME = "the authors' network for ImageNet, random weights"
FIXED = "fixed start"
"""Value of ``Cost.policy`` if no network decides."""


@dataclass(frozen=True)
class Cost:
    """The cost of an image of ``size`` squared with one sampler on one device, as medians of ``repeats``."""

    hash: str
    device: str
    dtype: str
    model: str
    sampler: str
    policy: str
    size: int
    repeats: int
    evaluations: float
    seconds: float
    gmac: float
    """Billions of multiply-adds, policy included; torch's FLOP counter counts twice as many."""
    policy_share: float
    """Share of the seconds that the policy takes."""


class TimedPolicy:
    """A policy that measures its own time."""

    def __init__(self, policy: Policy, watch: Stopwatch) -> None:
        self.policy, self.watch = policy, watch

    def __call__(self, latent: torch.Tensor, memory: Any) -> tuple[Any, Any]:
        self.watch.start()
        decided = self.policy(latent, memory)
        self.watch.stop()
        return decided


def measure(model: FrozenModel, policy: str | int, repeats: int, size: int) -> list[Cost]:
    """Measure the full chain and SkipDiff at (10, T/10) in alternation; return medians.

    Args:
        model: the frozen model.
        policy: a start level or a policy file.
        repeats: number of rounds of both.
        size: side of the enlarged image in pixels.
    """
    fine = model.schedule.steps // 10
    watch = Stopwatch(model.device)
    timed = TimedPolicy(parse_skipdiff(policy, model, 10, fine).policy, watch)
    found = sampler_speed(model, [timed], repeats, size)[0]
    share = watch.seconds / (watch.calls / max(fine - 1, 1)) / found["fast_seconds"] if watch.calls else 0.0
    call = network_gmac(model, size)
    deciding = policy_gmac(model, timed.policy, size) * (fine - 1)
    named = FIXED if isinstance(policy, int) else Path(policy).name
    about = (model.hash, hardware(model), str(model.dtype).removeprefix("torch."), model.name)
    full, fast = found["full_evaluations"], found["fast_evaluations"]
    return [
        Cost(*about, "full chain", "", size, repeats, full, found["full_seconds"], call * full, 0.0),
        Cost(
            *about,
            "SkipDiff",
            named,
            size,
            repeats,
            fast,
            found["fast_seconds"],
            call * fast + deciding,
            share,
        ),
    ]


def network_gmac(model: FrozenModel, size: int) -> float:
    """Return the billions of multiply-adds of one network call."""
    x = torch.zeros(1, 3, size, size, device=model.device)
    with FlopCounterMode(display=False) as counter:
        model.predict(x, x, torch.full((1,), 0.5, device=model.device))
    return counter.get_total_flops() / 2e9


def policy_gmac(model: FrozenModel, policy: Policy, size: int) -> float:
    """Return the billions of multiply-adds of one decision, as far as torch computes it."""
    with FlopCounterMode(display=False) as counter:
        policy(torch.zeros(1, 3, size, size, device=model.device), None)
    return counter.get_total_flops() / 2e9


def hardware(model: FrozenModel) -> str:
    """Describe the hardware that the model runs on."""
    return describe_hardware(model.device, World()).removesuffix(", shared machine")


def authors_model(device: torch.device) -> FrozenModel:
    """Build the authors' network for ImageNet (92.6 M weights), with random weights, for 256 pixels."""
    config = ModelConfig(scale=4, image_size=256, unet=AUTHORS, coarse_levels="rebuilt")
    model = random_model(config, device=device)
    model.name = AUTHORS_NAME
    if device.type == "cuda":
        model.dtype = torch.bfloat16
    return model


def table(
    folder: Path, models: list[FrozenModel], policies: list[str | int], repeats: int, size: int, made: str
) -> list[Cost]:
    """Measure what ``table3.csv`` lacks or holds with fewer rounds; write it and ``table3.md``.

    Args:
        folder: folder of the table.
        models: models to measure, each with its entry of ``policies``, see :func:`measure`.
        policies: start levels or policy files.
        repeats: number of rounds.
        size: side of the enlarged image in pixels.
        made: sentence of the page about the command.
    """
    file = folder / "table3.csv"
    found = read_costs(file)
    for model, policy in zip(models, policies, strict=True):
        named = FIXED if isinstance(policy, int) else Path(policy).name
        about = (model.hash, hardware(model), str(model.dtype).removeprefix("torch."), named, size)
        known = [(c.hash, c.device, c.dtype, c.policy, c.size) for c in found]
        if about in known:
            fast = known.index(about)  # the full chain precedes it
            if found[fast].repeats >= repeats:
                continue
            del found[fast - 1 : fast + 1]
        found += measure(model, policy, repeats, size)
        report(found, made).write(folder)
    replace(report(found, made), data=()).write(
        folder
    )  # names this run's versions; the measured values stay as they are
    return found


def read_costs(file: Path) -> list[Cost]:
    """Read the costs in a ``table3.csv``; none if it does not exist."""
    return read(file, Cost)


def report(costs: list[Cost], made: str) -> Report:
    """Report the table with its explanation and command; the paper's figures stand by its own network."""
    lines = []
    published = any(cost.model == AUTHORS_NAME for cost in costs)
    for full, fast in zip(costs[::2], costs[1::2], strict=True):
        for cost, key in ((full, "full"), (fast, "skipdiff")):
            seconds, gmac = COST[key]
            paper = f"{seconds:.2f} s, {gmac:,.0f} GMAC" if cost.model == AUTHORS_NAME else ""
            agent = "with its agent" if cost.policy != FIXED else "at its fixed start"
            sampler = f"{cost.sampler} {agent}" if cost.policy else cost.sampler
            lines.append(
                [
                    f"{sampler}: {cost.model}, {cost.size}×{cost.size}, {cost.dtype}, {cost.device}",
                    str(cost.repeats),
                    f"{cost.evaluations:.4g}",
                    f"{cost.seconds:.3f}",
                    f"{cost.seconds / full.seconds:.3f}",
                    f"{cost.gmac:,.0f}",
                    f"{cost.policy_share:.2%}" if cost.policy else "",
                    *[paper] * published,
                ]
            )
    head = ["", "rounds", "evaluations", "seconds", "of the full chain's", "GMAC", "policy's share of time"]
    return Report(
        "table3",
        "Table 3: cost",
        "Seconds of an image: medians of so many rounds, in which both samplers take turns. GMAC: billions "
        "of multiply-adds, half of what torch counts as FLOP; what the paper calls GFLOP is this unit."
        + " The paper's column: its own weights, one V100." * published
        + f" Where this page was made: torch {torch.__version__}, Python {platform.python_version()}. {made}",
        [Table([*head, *["the paper"] * published], lines)],
        [[field.name for field in fields(Cost)], *map(astuple, costs)],
    )
