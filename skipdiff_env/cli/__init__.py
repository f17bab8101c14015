"""The ``skipdiff`` command: one module per sub-command, without logic of its own.

The module of a sub-command has ``HELP``, ``add_arguments(parser)`` and ``run(args) -> exit status``. Every
call imports all of these modules to build the parser, so heavy libraries are imported only inside functions.

Exit status: 0 if everything was done; 2 for a wrong request or bad input, reported in one line; 130 after
Ctrl-C; 143 after SIGTERM.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

from .._version import __version__
from ..errors import one_line
from .streams import ended_by_sigterm, prepare_streams, say, silence

COMMANDS = {
    "upscale": "upscale",
    "info": "info",
    "train-ddpm": "train_ddpm",
    "train-restorer": "train_restorer",
    "train-refiner": "train_refiner",
    "train-addsr": "train_addsr",
    "average": "average",
    "find-plan": "find_plan",
    "import-sr3": "import_sr3",
    "export-diffusers": "export_diffusers",
    "web": "web",
    "completion": "completion",
}
"""For each sub-command, its module in this package."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """A formatter that keeps descriptions as they are and leaves more room for the names of options."""

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, **{"max_help_position": 26, **kwargs})


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line long and which accepts no abbreviations.

    ``make_epilog``, if it is set, returns the end of the help; it is called when the help is shown.
    """

    make_epilog: Callable[[], str] | None = None

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", HelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def format_help(self) -> str:
        """Return the help, with the epilog that ``make_epilog`` returns."""
        if self.make_epilog:
            self.epilog = self.make_epilog()
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Print the message as one line and exit with status 2."""
        self.exit(2, f"skipdiff: error: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command and all its sub-commands."""
    parser = Parser(
        prog="skipdiff",
        description="Enlarge photographs with a diffusion model that skips denoising steps.",
    )
    parser.add_argument("--version", action="version", version=f"skipdiff {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, module_name in COMMANDS.items():
        module = import_module(f".{module_name}", __name__)
        sentence = module.HELP[0].upper() + module.HELP[1:] + "."
        command = commands.add_parser(
            name, help=module.HELP, description=module.__dict__.get("DESCRIPTION", sentence)
        )
        module.add_arguments(command)
        command.make_epilog = getattr(module, "epilog", None)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own) and return the exit status."""
    prepare_streams()
    args = build_parser().parse_args(argv)
    try:
        with ended_by_sigterm():
            status = int(args.run(args))
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of our output, such as `head`, has closed it
        silence(sys.stdout)
        return 0
    except KeyboardInterrupt:
        say("skipdiff: interrupted")
        return 130
    except (ValueError, OSError) as error:  # SkipDiffError is a ValueError
        print_error(str(error))
        return 2


def print_error(message: str) -> None:
    """Print a message as one line on standard error."""
    say(f"skipdiff: error: {one_line(message)}")
