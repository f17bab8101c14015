"""``skipdiff completion``: completion scripts for shells, made by shtab from the argument parser."""

from __future__ import annotations

import argparse

HELP = "print a completion script for your shell"
DESCRIPTION = """Print a script that completes this command in your shell.

  bash:  skipdiff completion bash > ~/.local/share/bash-completion/completions/skipdiff
  zsh:   skipdiff completion zsh > ~/.zfunc/_skipdiff     (with ~/.zfunc in fpath)
  fish:  skipdiff completion fish > ~/.config/fish/completions/skipdiff.fish"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("shell", choices=["bash", "zsh", "fish"])


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from . import build_parser

    print(shtab.complete(build_parser(), args.shell))
    return 0
