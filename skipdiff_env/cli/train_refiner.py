"""``skipdiff train-refiner``: CCSR's second stage, a refiner for a frozen model."""

from __future__ import annotations

import argparse

from .train_ddpm import add_common, train_program

HELP = "train a refiner for the outputs of truncated chains (CCSR's second stage)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_common(parser)
    parser.add_argument(
        "--model", metavar="MODEL",
        help="name or folder of the model to refine; if given, repeat it with --resume [the recipe's]",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Train; return 0, or 128 plus the number of the signal that stopped the training."""
    return train_program(args, "refiner", args.model)
