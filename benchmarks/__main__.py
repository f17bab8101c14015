"""``python -m benchmarks NAME``: everything that prints a number of the README."""

from __future__ import annotations

import argparse
import importlib
import sys

from skipdiff_env.errors import SkipDiffError

COMMANDS = {
    "demo": ("demo", "enlarge a bundled photograph and print a table"),
    "paper": ("paper.command", "every table and figure of the paper on your weights and images"),
    "test-set": ("test_set", "rebuild a test folder from your own copies of the data sets"),
    "agents": ("agents", "agents beside every fixed schedule and the exact optimum"),
    "ceilings": ("ceilings", "how much there is for an agent to learn, and from what"),
    "step-cost": ("step_cost", "one agent that is told the price of an evaluation"),
    "agent-training": ("agent_training", "what training an agent costs, beside the paper's recipe"),
    "spn": ("spn", "norm and width of the skip proposal network"),
    "stability": ("stability", "how much of a result is the noise seed's doing (G-STD and L-STD)"),
    "refiner": ("refiner_strength", "how much of a refiner's change pays: perception against distortion"),
    "inputs": ("inputs", "models beside one another on clean inputs and on JPEGs"),
    "recipes": ("recipes", "short training runs side by side: which choices of a recipe pay"),
    "docs": ("docs", "copy result tables into README and model cards"),
    "speed": ("speed", "ratios of running times, each within one run"),
    "tiling": ("tiling", "seams between tiles, agreement of tile sizes, and peak memory"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one benchmark."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, text) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        if name in argv[:1]:  # the others' imports cost seconds, and some need extras
            importlib.import_module(f"benchmarks.{module}").add_arguments(sub)
    args = parser.parse_args(argv)
    try:
        return importlib.import_module(f"benchmarks.{COMMANDS[args.command][0]}").run(args)
    except SkipDiffError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
