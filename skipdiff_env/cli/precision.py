"""The option ``--precision`` of the commands that run a network."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "float32", "bfloat16")


def add_precision(parser: argparse._ActionsContainer) -> None:
    """Declare the argument in a parser, or in one of its groups."""
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto", metavar="NAME",
        help="float32 or bfloat16 [bfloat16 on CUDA, else float32]",
    )  # fmt: skip


def dtype_of(args: argparse.Namespace) -> torch.dtype | None:
    """Return the dtype of the network; None leaves the choice to the device."""
    import torch

    return None if args.precision == "auto" else getattr(torch, args.precision)
