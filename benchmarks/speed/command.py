"""Measures ratios of running times, each side by side within one run.

    python -m benchmarks speed [--only sampler few-steps env cache recorded ...]
    python -m benchmarks speed --only agents upscale --beside WORKTREE

Writes ``benchmarks/results/<model>/speed/<section>.md`` as soon as a section is done, and ``speed.md``, which
joins the existing sections. Absolute times hold for the machine that a section names; the ratios should hold
elsewhere, too.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import time
from pathlib import Path

import gymnasium
import numpy as np
import torch

from skipdiff_env import SkipDiffError, load_pretrained
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.files import write_atomically
from skipdiff_env.latent_cache import LatentCache

from ..measure.family import same_scale
from ..measure.options import fixed_start, made_by, trained_rivals
from ..measure.tables import RESULTS, Report, Table, paragraphs
from . import agents, engines, enlarging
from .environment import HEAD, WARM_SIDE, measure, measure_warm
from .few_steps import HEAD as HEAD_FEW
from .few_steps import few_step_speed
from .parts import OVERRIDES, PARTS, measure_processors
from .sampler import sampler_speed
from .tiling import measure_memory
from .training import training_speed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments of the speed table."""
    parser.add_argument("--model", default="natural-4x", help="a shipped model's name or a model folder")
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=[name for name in SECTIONS if name != "upscale"],
        help="sections to measure [all but upscale]",
    )  # fmt: skip
    parser.add_argument(
        "--ccsr", type=Path, metavar="FOLDER", help="CCSR's model, for few-steps [the shipped one]"
    )
    parser.add_argument(
        "--addsr", type=Path, metavar="FOLDER", help="AddSR's student, for few-steps [the shipped one]"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=5,
        help="number of rounds, of which medians are reported [5]",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="results folder")
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="DIR",
        help="for agents and upscale: the worktree of another commit, measured in alternation",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs/speed"),
        help="for recorded and agents: folder of recordings [runs/speed]",
    )


def run(args: argparse.Namespace) -> int:
    """Measure section by section; after each, write it and the page of all existing sections."""
    model = load_pretrained(args.model)
    folder = args.out / model.name
    (folder / "speed").mkdir(parents=True, exist_ok=True)
    machine = (
        f"Model `{model.hash}`, {model.device}, {torch.get_num_threads()} threads, {platform.machine()}, "
        f"torch {torch.__version__}."
    )
    given = argparse.Namespace(**vars(args))
    for name in args.only:
        title, *blocks = SECTIONS[name](model, args)
        given.only = [name]
        told = f"{machine} {ROUNDS[name].format(args.repeats)} {made_by('speed', given, add_arguments)}"
        section = paragraphs(f"## {title}", told, *blocks)
        print(section, flush=True)
        write_atomically(folder / "speed" / f"{name}.md", section.encode())
        files = [folder / "speed" / f"{some}.md" for some in SECTIONS]
        parts = [file.read_text(encoding="utf-8").rstrip() for file in files if file.is_file()]
        Report("speed", f"Speed of {model.name}", "", parts).write(folder)
    return 0


Section = tuple[str | Table, ...]
"""A title, followed by paragraphs and tables."""


def _sampler(model: FrozenModel, args: argparse.Namespace) -> Section:
    fine = model.schedule.steps // 10
    starts = sorted({min(7, fine), model.config.start or min(7, fine)})
    lines = [
        [
            f"start {start} / full chain",
            f"{row['fast_evaluations']:.0f} / {row['full_evaluations']:.0f}",
            f"{row['fast_seconds']:.2f} / {row['full_seconds']:.2f}",
            f"{row['ratio']:.3f}",
        ]
        for start, row in zip(starts, sampler_speed(model, starts, args.repeats), strict=True)
    ]
    return "Sampler against the full chain", Table(["pair", "evaluations", "seconds", "ratio"], lines)


def _few_steps(model: FrozenModel, args: argparse.Namespace) -> Section:
    folders = trained_rivals(args)
    trained = {
        kind: same_scale(load_pretrained(folder, model.device), folder, model.scale)
        for kind, folder in folders.items()
    }
    found = few_step_speed(model, fixed_start(model), trained, args.repeats)
    hashes = "".join(f" {TITLES[kind]}'s: `{other.hash}`." for kind, other in trained.items())
    told = (
        "The demo's photograph, 256 pixels a side. The last columns are ratios of seconds within a round; "
        f"the refiner is no evaluation, but takes its time.{hashes} AddSR's authors report 7 times the speed "
        "of SeeSR, which is another chain on another network."
    )
    lines = [[name, *cost.cells] for name, cost in found.items()]
    return "Few steps and plans beside SkipDiff and the full chain", told, Table(HEAD_FEW, lines)


def _env(model: FrozenModel, args: argparse.Namespace) -> Section:
    rows = [measure(model, batch, args.repeats) for batch in (1, 4, 16)]
    told = (
        "`outside`: share of wall time outside network and metric. `batched`, `single`: steps a second of "
        "one batched environment and of as many scalar ones; `gain`: their ratio."
    )
    return "Environment, 192x192 images, NIQE", told, Table(HEAD, [row.cells for row in rows])


def _cache(model: FrozenModel, args: argparse.Namespace) -> Section:
    """Play every episode twice in one environment with a cache: cold, then warm."""
    env = gymnasium.make("SkipDiff-v0", model=model, noise="fixed", cache=LatentCache(), crop="center")
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    actions = np.random.default_rng(0).integers(
        0, 2, (args.repeats, env.get_wrapper_attr("process").decisions)
    )
    for episode, schedule in enumerate(actions):
        for pass_ in seconds:
            began = time.process_time()
            env.reset(options={"image": 0, "noise_seed": episode})
            for action in schedule:
                env.step(int(action))
            seconds[pass_].append((time.process_time() - began) / len(schedule))
    cold, warm = (statistics.median(seconds[p]) for p in ("cold", "warm"))
    cells = [f"{1 / cold:.1f}", f"{1 / warm:.1f}", f"{cold / warm:.0f}"]
    batched, single = measure_warm(model, WARM_BATCH, args.repeats)
    told = (
        f"Warm, latents seen at {WARM_SIDE} pixels: a batch of {WARM_BATCH} beside as many scalar "
        "environments one after the other."
    )
    return (
        "Latent cache, NIQE",
        "One environment; all steps a second of the processor.",
        Table(["cold steps/s", "warm steps/s", "ratio"], [cells], 0),
        told,
        Table(
            ["batch", "scalar", "ratio", "aimed at"],
            [[f"{batched:.0f}", f"{single:.0f}", f"{batched / single:.2f}", "4"]],
            0,
        ),
    )


def _recorded(model: FrozenModel, args: argparse.Namespace) -> Section:
    """Measure steps per second of processor time in whole episodes, which are recorded beforehand."""
    envs = gymnasium.make_vec("SkipDiffRecorded-v0", 64, model=model, recordings=args.runs / "recordings")
    actions = np.random.default_rng(0).integers(0, 2, (args.repeats, 200, envs.num_envs))
    envs.reset(seed=0)
    rates = []
    for steps in actions:
        began = time.process_time()
        for chosen in steps:
            envs.step(chosen)
        rates.append(steps.size / (time.process_time() - began))
    table = Table(["steps/s"], [[f"{statistics.median(rates):.0f}"]], 0)
    told = "`SkipDiffRecorded-v0`, bundled photographs, a batch of 64; steps a second of the processor."
    return "Recorded environment", told, table


def _agents(model: FrozenModel, args: argparse.Namespace) -> Section:
    found = agents.measure(args.model, args.runs / "recordings", args.beside, args.repeats)
    names = {"here": "", "beside": ", other commit"}
    lines = [[f"{kind}{names[side]}", f"{statistics.median(r):.0f}"] for (side, kind), r in found.items()]
    other = f" Other commit: `{_commit(args.beside)}`." if args.beside else ""
    told = (
        "Recorded episodes of the bundled photographs, latents at 32 pixels, 16 environments, 4 epochs, 2 "
        "minibatches, group norm; PPO with a clock and a hidden layer of 128, the others with a GRU of 256. "
        "One thread; decisions a second of the processor, of new agents, which skip every other time."
        f"{other}"
    )
    ratios = [[name, f"{ratio:.2f}", aim] for name, ratio, aim in agents.ratios(found)]
    table = Table(["agent", "decisions/s"], lines)
    return "Agents learning from recordings", told, table, Table(["ratio", "median", "aimed at"], ratios)


def _upscale(model: FrozenModel, args: argparse.Namespace) -> Section:
    if args.beside is None:
        raise SkipDiffError("speed --only upscale needs the worktree of another commit: give --beside")
    found = enlarging.measure(args.model, args.beside, args.repeats)
    cells = [f"{statistics.median(seconds):.2f}" for seconds in found.values()]
    told = (
        "`skipdiff upscale` with its default settings on the demo's photograph, whole processes; other "
        f"commit: `{_commit(args.beside)}`, with its own state of the model."
    )
    table = Table(["seconds", "other commit", "ratio"], [[*cells, f"{enlarging.ratio(found):.2f}"]], 0)
    return "Enlarging a photograph, beside another commit", told, table


def _commit(tree: Path) -> str:
    command = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _training(model: FrozenModel, args: argparse.Namespace) -> Section:
    row = training_speed(device=str(model.device), steps=2 * args.repeats)
    head = ["images/s", "share of matrix peak", "peak", "data, logging"]
    cells = [f"{row['images_per_second']:.1f}", f"{row['peak_share']:.0%}"]
    cells += [f"{row['peak_tflops']:.2f} TFLOP/s", f"{row['overhead_share']:.1%} of a step"]
    return "Training, recipe natural-4x", Table(head, [cells], 0)


def _parts(model: FrozenModel, args: argparse.Namespace) -> Section:
    lines = []
    for processor, found in measure_processors(2 * args.repeats).items():
        slow = found["seconds"]["bfloat16"]["step"]
        for name, seconds in found["seconds"].items():
            what = f"the faster: {found['faster']}" if name == "the faster" else name
            shares = [f"{seconds[part] / seconds['step']:.0%}" for part in PARTS]
            speed = [f"{found['images'] / seconds['step']:.1f}", f"{slow / seconds['step']:.2f}"]
            lines.append([processor, what, *shares, *speed])
    head = ["processor", "Muon orthogonalises in", *PARTS, "images/s", "ratio"]
    return (
        "A training step by parts",
        f"Recipe natural-4x with `{' '.join(OVERRIDES)}`, one thread; both types take turns in one process. "
        "Shares of a step; *backward* holds the clipping of gradients and the moving average, too. *Ratio*: "
        "steps a second over those with bfloat16 on the same processor. *AVX2 alone*: torch and oneDNN were "
        "told to use nothing newer (`ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2`).",
        Table(head, lines, 2),
    )


def _tiling(model: FrozenModel, args: argparse.Namespace) -> Section:
    """Measure the peak memory of separate processes, which is a few images of the photograph's size."""
    lines = [
        [
            str(row["size"]),
            f"{row['peak_mb']:.0f}",
            f"{row['bound_mb']:.0f}",
            f"{row['more_in_images']:.2f}",
        ]
        for row in measure_memory(args.model, *TILED)
    ]
    told = (
        "The bound: 1.3 times the first peak and six float32 images of the size. The last column: growth "
        "since the first row, in float32 images of the size."
    )
    table = Table(["result", "peak MB", "bound MB", "growth"], lines)
    return "Tiling: peak memory against image size", told, table


WARM_BATCH = 8


def _engines(model: FrozenModel, args: argparse.Namespace) -> Section:
    lines: list[list[str]] = []
    missing: dict[str, str] = {}
    for threads in engines.THREADS:
        found = engines.measured(args.model, threads, 2 * args.repeats)
        missing |= found["missing"]
        usual = {row["side"]: row["seconds"] for row in found["rows"] if row["way"] == engines.AS_IT_IS}
        for row in found["rows"]:
            ratio = f"{usual[row['side']] / row['seconds']:.2f}"
            cells = [f"{row['seconds']:.3f}", ratio, f"{row['ready']:.1f}", str(row["units"])]
            lines.append([str(threads), str(row["side"]), row["way"], *cells])
    told = (
        "A network call on one picture; *side*: of the picture in pixels. Seconds of the processor with one "
        "thread, of the clock with more. *Ratio*: calls a second over torch's as it is, which is "
        "channels-last. *Ready*: seconds of the clock until the first picture. *Units*: the largest "
        "difference of x̂0 in 8-bit units."
    )
    lacking = "; ".join(f"{way}: {why}" for way, why in missing.items())
    head = ["threads", "side", "way", "seconds", "ratio", "ready", "units"]
    return "Engines", told, *([f"Not available here: {lacking}."] if lacking else []), Table(head, lines, 3)


TILED = ((1024, 768), (2048, 1536), (4096, 3072))
TITLES = {"ccsr": "CCSR", "addsr": "AddSR"}
SECTIONS = {
    "sampler": _sampler,
    "few-steps": _few_steps,
    "env": _env,
    "cache": _cache,
    "recorded": _recorded,
    "agents": _agents,
    "training": _training,
    "parts": _parts,
    "tiling": _tiling,
    "engines": _engines,
    "upscale": _upscale,
}
ROUNDS = {
    "sampler": "Medians of {} alternating rounds.",
    "few-steps": "Medians of {} rounds, in which all take turns.",
    "env": "Medians of {} episodes, which both play by turns.",
    "cache": "Medians of {} episodes, each played cold and warm.",
    "recorded": "Median of {} times 200 steps.",
    "agents": "Medians of {} rounds, in which all take turns.",
    "training": "Medians of 2 × {} steps.",
    "parts": "Medians of 2 × {} steps of each type.",
    "tiling": "One process a size.",
    "upscale": "Medians of {} alternating rounds.",
    "engines": "Medians of 2 × {} calls of each way, which take turns; a process for each number of threads.",
}
"""What the figures of a section are medians of."""
