"""``skipdiff train-restorer``: a restorer of degraded inputs, for a model."""

from __future__ import annotations

import argparse

from .train_ddpm import add_common, train_program

HELP = "train a restorer, which removes noise, blur and blocking from inputs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_common(parser)
    parser.add_argument(
        "--model", metavar="MODEL",
        help="name or folder of the model that uses the restorer; if given, repeat it with --resume [the "
        "recipe's]",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Train; return 0, or 128 plus the number of the signal that stopped the training."""
    return train_program(args, "restorer", args.model)
