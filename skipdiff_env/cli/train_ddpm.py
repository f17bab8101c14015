"""``skipdiff train-ddpm``: train a diffusion model."""

from __future__ import annotations

import argparse
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..training.recipe import Program

HELP = "train a diffusion model by a recipe"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    start = add_common(parser)
    start.add_argument("--init", metavar="MODEL", help="start from the weights of a model folder or name")


def add_common(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """What every training command has; the group that ``--resume`` is in."""
    parser.add_argument("--recipe", required=True, help="name of a shipped recipe, or a YAML file")
    parser.add_argument(
        "--data", required=True, nargs="+", metavar="PATH", help="folders, tar files, .txt lists, image files"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--val", nargs="+", default=[], metavar="PATH",
        help="validation images (default: a few training images are held out)",
    )  # fmt: skip
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument("--max-steps", type=int, metavar="N", help="stop at this step")
    parser.add_argument("--max-minutes", type=float, metavar="M", help="stop after this time")
    cooldown = parser.add_mutually_exclusive_group()
    cooldown.add_argument(
        "--cooldown", type=int, metavar="STEPS",
        help="let the rate fall to zero over so many steps, in a branch that leaves the run as it is; "
        "at --max-steps, or at once",
    )  # fmt: skip
    cooldown.add_argument(
        "--cooldown-minutes", type=float, metavar="C", help="the same for the last C of --max-minutes"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 … (default: auto)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="change the recipe, such as --set data.crop=64; may be given again",
    )  # fmt: skip
    return start


def run(args: argparse.Namespace) -> int:
    """Train; returns 0, or 128 + the number of the signal that stopped it."""
    return train_program(args, "ddpm", args.init)


def train_program(args: argparse.Namespace, program: Program, init: str | None) -> int:
    """Train what ``args`` ask for; see :func:`run`."""
    from skipdiff_env.training import train

    result = train(
        args.recipe, args.data, args.out, args.resume, init, args.max_minutes, args.device,
        val=args.val, max_steps=args.max_steps, cooldown=args.cooldown,
        cooldown_minutes=args.cooldown_minutes, overrides=args.overrides, program=program,
    )  # fmt: skip
    print(f"step {result.step} ({result.reason}): {result.model}")
    if result.reason.startswith("SIG"):
        return 128 + signal.Signals[result.reason]
    return 0
