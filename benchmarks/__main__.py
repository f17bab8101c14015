"""``python -m benchmarks NAME``: everything that prints a number of the README."""

from __future__ import annotations

import argparse
import importlib
import sys

COMMANDS = {
    "demo": ("demo", "enlarge a bundled photograph and print a table"),
    "quality": ("quality_table", "metrics of every start, CSA alone and the full chain over a set of images"),
    "docs": ("docs", "copy result tables into README and model cards"),
    "speed": ("speed", "ratios of running times, each within one run"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, text) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        importlib.import_module(f"benchmarks.{module}").add_arguments(sub)
    args = parser.parse_args(argv)
    return importlib.import_module(f"benchmarks.{COMMANDS[args.command][0]}").run(args)


if __name__ == "__main__":
    sys.exit(main())
