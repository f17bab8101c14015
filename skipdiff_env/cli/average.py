"""``skipdiff average``: average the weights of two models."""

from __future__ import annotations

import argparse

HELP = "average the weights of two models of the same architecture"
DESCRIPTION = """Average the weights of two models that were trained from the same model.

  skipdiff average natural-4x runs/natural-4x/model --share 0.5 -o runs/between"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("models", nargs=2, metavar="MODEL", help="names or folders of the two models")
    parser.add_argument(
        "--share", type=float, default=0.5, metavar="W", help="weight of the second model, from 0 to 1 [0.5]"
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder of the new model")


def run(args: argparse.Namespace) -> int:
    """Average the models, and print the folder of the new one."""
    from ..training.average import average_models

    first, second = args.models
    print(average_models(first, second, args.share, args.output))
    return 0
