"""``skipdiff completion``: completion scripts for shells, which shtab makes from the argument parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

HELP = "print a completion script for your shell"
DESCRIPTION = """Print a script that completes this command in your shell.

  bash:  skipdiff completion bash > ~/.local/share/bash-completion/completions/skipdiff
  zsh:   skipdiff completion zsh > ~/.zfunc/_skipdiff     (with ~/.zfunc in fpath)
  fish:  skipdiff completion fish > ~/.config/fish/completions/skipdiff.fish"""


PATHS = ("INPUT", "OUT", "FILE", "PATH", "DIR", "JSON")
"""The metavars of arguments that are files or folders."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("shell", choices=["bash", "zsh", "fish"], help="the shell that the script is for")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from . import build_parser

    parser = build_parser()
    for action in _actions(parser):
        if action.choices is None and action.metavar in PATHS:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, args.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield all actions of a parser and its sub-commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
