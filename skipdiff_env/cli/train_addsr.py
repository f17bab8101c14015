"""``skipdiff train-addsr``: AddSR, which distils a frozen model into a student that takes few evaluations."""

from __future__ import annotations

import argparse

from .train_ddpm import add_common, train_program

HELP = "train a student that takes 1 to 4 evaluations (AddSR)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_common(parser)
    parser.add_argument(
        "--model", metavar="MODEL",
        help="name or folder of the teacher; if given, repeat it with --resume [the recipe's]",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Train; return 0, or 128 plus the number of the signal that stopped the training."""
    return train_program(args, "addsr", args.model)
