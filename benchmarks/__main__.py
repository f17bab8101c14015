"""``python -m benchmarks NAME``: everything that prints a number of the README."""

from __future__ import annotations

import argparse
import importlib
import sys

from skipdiff_env.errors import SkipDiffError

COMMANDS = {
    "demo": ("paper.demo", "enlarge a bundled photograph and print a table"),
    "paper": ("paper.command", "every table and figure of the paper on your weights and images"),
    "photographs": ("paper.gather", "freely licensed photographs to learn from, out of Debian's packages"),
    "test-set": ("measure.test_set", "rebuild a test folder from your own copies of the data sets"),
    "agents": ("agents.command", "agents beside every fixed schedule and the exact optimum"),
    "ceilings": ("agents.ceilings", "how much there is for an agent to learn, and from what"),
    "texture": ("agents.texture", "can the best start be told from the texture of what agents see"),
    "step-cost": ("agents.step_cost", "one agent that is told the price of an evaluation"),
    "agent-training": ("agents.training", "what training an agent costs, beside the paper's recipe"),
    "agent-recipe": ("agents.recipe", "which choices of its recipe the paper's agent learns by"),
    "agent-calls": ("agents.calls", "agents on SkipDiff-v1 beside the best fixed chain and the optimum"),
    "spn": ("agents.spn", "norm and width of the skip proposal network"),
    "animate": ("paper.animate", "a photograph before and after, and episodes as small animations"),
    "stability": ("paper.stability", "how much of a result is the noise seed's doing (G-STD and L-STD)"),
    "refiner": ("paper.refiner", "how much of a refiner's change pays: perception against distortion"),
    "plans": ("paper.plans", "a model's plans against its fixed start and the standard samplers"),
    "inputs": ("paper.inputs", "models beside one another on clean inputs and on JPEGs"),
    "restore": ("restore.command", "models beside other programs on the inputs that people own"),
    "auto": (
        "restore.auto",
        "choose anew which model a photograph gets by itself, by what is measured of it",
    ),
    "recipes": ("paper.recipes", "short training runs side by side: which choices of a recipe pay"),
    "companions": ("paper.companions", "which parts of CCSR's and AddSR's trainings earn their place"),
    "tutorials": ("measure.tutorials", "run the manual's tutorials and render their pages"),
    "docs": ("measure.docs", "copy result tables into README and model cards"),
    "speed": ("speed.command", "ratios of running times, each within one run"),
    "tiling": ("speed.tiling", "seams between tiles, agreement of tile sizes, and peak memory"),
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
