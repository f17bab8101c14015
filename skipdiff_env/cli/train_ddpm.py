"""``skipdiff train-ddpm``: train a diffusion model."""

from __future__ import annotations

import argparse
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..training.recipe import Program

HELP = "train a diffusion model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    start = add_common(parser)
    start.add_argument(
        "--init", metavar="MODEL", help="start from the weights of this model (name or folder) [the recipe's]"
    )


def add_common(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Add the arguments of every training command; return the group that contains ``--resume``."""
    parser.add_argument("--recipe", required=True, help="name of a shipped recipe or a YAML file")
    parser.add_argument(
        "--data", required=True, nargs="+", metavar="PATH",
        help="training images: folders, .tar files, .txt lists or image files",
    )  # fmt: skip
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--val", nargs="+", default=[], metavar="PATH",
        help="validation images [a few of the training images, which are held out]",
    )  # fmt: skip
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument("--max-steps", type=int, metavar="N", help="stop at step N")
    parser.add_argument("--max-minutes", type=float, metavar="M", help="stop after M minutes")
    cooldown = parser.add_mutually_exclusive_group()
    cooldown.add_argument(
        "--cooldown", type=int, metavar="STEPS",
        help="lower the learning rate to zero over STEPS steps, in a branch that leaves the run itself as it "
        "is; the branch begins at --max-steps, or at once",
    )  # fmt: skip
    cooldown.add_argument(
        "--cooldown-minutes",
        type=float,
        metavar="C",
        help="the same, over the last C minutes of --max-minutes",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... [auto]")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="change a value of the recipe, as in --set data.crop=64; may be repeated",
    )  # fmt: skip
    return start


def run(args: argparse.Namespace) -> int:
    """Train; return 0, or 128 plus the number of the signal that stopped the training."""
    return train_program(args, "ddpm", args.init)


def train_program(args: argparse.Namespace, program: Program, init: str | None) -> int:
    """Train as the arguments say, and return the same as :func:`run`."""
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
