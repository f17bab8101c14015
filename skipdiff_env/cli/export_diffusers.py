"""``skipdiff export-diffusers``: write a model as a folder that diffusers reads."""

from __future__ import annotations

import argparse

HELP = "export a model for the diffusers library"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="name or folder of a model")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder of the exported model")


def run(args: argparse.Namespace) -> int:
    """Export the model, and print the new folder."""
    from ..diffusion.interop.diffusers_export import export_diffusers

    print(export_diffusers(args.model, args.output))
    return 0
