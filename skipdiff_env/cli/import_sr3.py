"""``skipdiff import-sr3``: convert published checkpoints of SR3 and SkipDiff."""

from __future__ import annotations

import argparse

HELP = "import a published checkpoint of SR3 or SkipDiff"
DESCRIPTION = """Import a checkpoint of the SR3 re-implementation or of the authors of SkipDiff.

  skipdiff import-sr3 I640000_E37_gen.pth --config sr_sr3_16_128.json -o faces-8x
  skipdiff import-sr3 ppo_model.pth -o agent.safetensors"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "checkpoint",
        metavar="FILE",
        help="a network, I..._gen.pth (with --config), or an agent, ppo_model.pth",
    )
    parser.add_argument(
        "--config", metavar="JSON", help="the configuration that the network was trained with"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="PATH",
        help="folder of the new model; for an agent, a .safetensors file",
    )
    parser.add_argument(
        "--levels", type=int, metavar="T",
        help="number of levels of the chain; a longer chain is respaced to T [100]",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Import, and print the path of the result."""
    from ..diffusion.interop.sr3 import LEVELS, import_sr3
    from ..errors import SkipDiffError
    from ..policies.authors import import_policy

    if args.config:
        levels = LEVELS if args.levels is None else args.levels
        print(import_sr3(args.checkpoint, args.config, args.output, levels))
        return 0
    if args.levels is not None:
        raise SkipDiffError("--levels applies only to a network: give --config too")
    print(import_policy(args.checkpoint, args.output))
    return 0
