"""``skipdiff import-sr3``: published SR3 and SkipDiff checkpoints become files of ours."""

from __future__ import annotations

import argparse

HELP = "import a checkpoint of SR3 or SkipDiff"
DESCRIPTION = """Import a checkpoint of the SR3 re-implementation or of SkipDiff's authors.

  skipdiff import-sr3 I640000_E37_gen.pth --config sr_sr3_16_128.json -o faces-8x
  skipdiff import-sr3 ppo_model.pth -o agent.safetensors"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", metavar="FILE", help="I..._gen.pth with --config, or ppo_model.pth")
    parser.add_argument("--config", metavar="JSON", help="what the network was trained with")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="PATH",
        help="model folder; for an agent, a .safetensors file",
    )
    parser.add_argument(
        "--levels", type=int, metavar="T", help="steps of the chain; longer ones are respaced (default: 100)"
    )


def run(args: argparse.Namespace) -> int:
    """Import, and print where it went."""
    from ..diffusion.interop.sr3 import LEVELS, import_sr3
    from ..errors import SkipDiffError
    from ..policies.authors import import_policy

    if args.config:
        levels = LEVELS if args.levels is None else args.levels
        print(import_sr3(args.checkpoint, args.config, args.output, levels))
        return 0
    if args.levels is not None:
        raise SkipDiffError("--levels is about a network: give --config too")
    print(import_policy(args.checkpoint, args.output))
    return 0
