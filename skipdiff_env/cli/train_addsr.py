"""``skipdiff train-addsr``: AddSR's distillation, a student of four steps from a frozen model."""

from __future__ import annotations

import argparse

from .train_ddpm import add_common, train_program

HELP = "train a student that needs 1 to 4 steps (AddSR)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_common(parser)
    parser.add_argument(
        "--model", metavar="MODEL",
        help="the teacher, a model folder or name; also with --resume (default: the recipe's)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Train; returns 0, or 128 + the number of the signal that stopped it."""
    return train_program(args, "addsr", args.model)
