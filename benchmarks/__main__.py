"""Runs ``python -m benchmarks NAME``: the commands behind every published number."""

from __future__ import annotations

import argparse
import importlib
import sys

from skipdiff_env.errors import SkipDiffError

COMMANDS = {
    "demo": ("paper.demo", "enlarge a bundled photograph and print a table"),
    "paper": (
        "paper.command",
        "remake the paper's Tables 1 to 6 and Figures 1, 5 and 6 with your own model and pictures",
    ),
    "photographs": ("paper.gather", "gather freely licensed photographs to train on, from Debian's packages"),
    "test-set": ("measure.test_set", "rebuild a test set from your own copies of the data sets"),
    "agents": ("agents.command", "compare agents with fixed starts and the exact optimum"),
    "ceilings": ("agents.ceilings", "measure how much an agent could learn, and from what"),
    "texture": ("agents.texture", "test whether the texture of the latents predicts the best start"),
    "step-cost": ("agents.step_cost", "train one agent that observes the price of an evaluation"),
    "agent-training": (
        "agents.training",
        "compare the cost of training an agent with that of the paper's recipe",
    ),
    "agent-recipe": ("agents.recipe", "find which choices in the recipe of the paper's agent let it learn"),
    "road": ("agents.road", "train an agent by the manual's own commands, and judge it"),
    "agent-calls": (
        "agents.calls",
        "compare agents on SkipDiff-v1 with the best fixed chain and the optimum",
    ),
    "spn": ("agents.spn", "compare norms and widths of the skip proposal network"),
    "animate": (
        "paper.animate",
        "make the manual's before/after picture and its animations of episodes",
    ),
    "stability": (
        "paper.stability",
        "measure how much a result varies with the noise seed (G-STD and L-STD)",
    ),
    "precision": ("paper.precision", "test whether bfloat16 changes the figures of the tables"),
    "refiner": ("training.refiner", "measure a refiner's perception–distortion trade-off"),
    "plans": ("paper.plans", "compare a model's plans with its fixed start and the standard samplers"),
    "inputs": ("paper.inputs", "compare models on clean inputs and on JPEGs"),
    "restore": ("restore.command", "compare models with other programs on realistic inputs"),
    "auto": (
        "restore.auto",
        "fit the rule by which --model auto chooses a model for a photograph",
    ),
    "recipes": ("training.recipes", "compare choices of a training recipe in short runs"),
    "legs": ("training.legs", "measure what each training run improved"),
    "companions": ("training.companions", "measure what each part of CCSR's and AddSR's training is worth"),
    "tutorials": ("measure.tutorials", "run the manual's tutorials and render their pages"),
    "docs": ("measure.docs", "copy result tables into the README and the model cards"),
    "speed": ("speed.command", "measure ratios of running times, each within one run"),
    "tiling": ("speed.tiling", "measure seams between tiles, agreement of tile sizes, and peak memory"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one benchmark."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, text) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name in argv[:1]:  # importing the other modules takes seconds, and some need extras
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
