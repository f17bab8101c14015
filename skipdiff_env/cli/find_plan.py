"""``skipdiff find-plan``: the best fixed plans of a model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .precision import add_precision, dtype_of
from .streams import say

HELP = "search for the best fixed plans with given numbers of network calls"
DESCRIPTION = """Search for the best fixed plan with each given number of network calls, on high-resolution
pictures that the model was not trained on. A search that was stopped continues from its --study.
The command needs the extra 'plans': pip install 'skipdiff[plans]'.

  skipdiff find-plan -m my-model/ --images photos/ --evaluations 4 5 6 --study plans.study
  skipdiff upscale holiday.jpg -o large.png -m my-model/ --policy plan:5

The first command writes plans.json into the model's folder, where the second one looks for it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add(
        "-m", "--model", default="natural-4x", metavar="NAME", help="name or folder of the model [natural-4x]"
    )
    add("--images", required=True, metavar="PATH", help="high-resolution pictures: a folder, .tar or file")
    add("--every", type=int, default=1, metavar="K", help="take every K-th picture [1]")
    add(
        "--evaluations", nargs="+", type=int, required=True, metavar="N",
        help="numbers of network calls, each at least 2",
    )  # fmt: skip
    add(
        "--metric", nargs="+", default=["lpips"], metavar="M[:W]",
        help="metrics to optimise, each with an optional weight [lpips]",
    )  # fmt: skip
    add(
        "--coarse-steps",
        type=int,
        metavar="S",
        help="number of coarse steps of the SkipDiff chain that plans are compared with [10]",
    )
    add("--start", type=int, metavar="K", help="fixed start of that chain [the model's own]")
    add(
        "--efforts", action="store_true",
        help="choose fast, normal and best among the plans found, and change nothing else in the file",
    )  # fmt: skip
    add("--trials", type=int, default=150, metavar="N", help="plans to try for each number of calls [150]")
    add("--minutes", type=float, metavar="T", help="time limit of each search, in minutes [none]")
    add(
        "--image-size",
        type=int,
        default=128,
        metavar="PX",
        help="side of the pictures' crops in pixels [128]",
    )
    add("--study", metavar="FILE", help="file that keeps all trials, from which a stopped search continues")
    add("--seed", type=int, default=0, metavar="N", help="seed of the search [0]")
    add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, ... [auto]")
    add_precision(parser)
    add("-o", "--output", metavar="FILE", help="file to write [plans.json in the model's folder]")


def run(args: argparse.Namespace) -> int:
    """Search for each number of calls and print the plans; write the file when all are found."""
    from ..chains import parse_skipdiff
    from ..chains.shipped import save_efforts, save_plans
    from ..diffusion import load_pretrained
    from ..diffusion.folder import PLANS
    from ..errors import SkipDiffError, whole_number
    from ..images import open_source
    from ..planning import PlanSearch, choose_efforts

    model = load_pretrained(args.model, args.device, dtype_of(args))
    if model.folder is None:
        raise SkipDiffError(f"{args.model} is not in a folder: give the folder of a model")
    metrics = {name: _weight(weight) for name, _, weight in (m.partition(":") for m in args.metric)}
    pictures = open_source(args.images)
    pictures = pictures.take(len(pictures), every=whole_number("every", args.every, 1, len(pictures)))
    other = args.start is not None or args.coarse_steps is not None
    search = PlanSearch(
        model, pictures, metrics, image_size=args.image_size, study=args.study, seed=args.seed,
        reference=parse_skipdiff(args.start, model, args.coarse_steps) if other else None,
    )  # fmt: skip
    found = {}
    for number in sorted(set(args.evaluations)):

        def tell(trials: int, best: float, number: int = number) -> None:
            if sys.stderr.isatty():
                print(f"\r{number} calls: {trials} plans, best {best:+.4f}  ", end="", file=sys.stderr)

        plan = search.find(number, args.trials, args.minutes, tell)
        figures = ", ".join(f"{name} {value:.4f}" for name, value in plan.figures.items())
        say(f"{plan.plan}   {figures}   ({plan.trials} plans, {plan.seconds / 60:.1f} minutes)")
        found[plan.plan] = {
            **plan.figures, "trials": plan.trials, "minutes": round(plan.seconds / 60, 1)
        }  # fmt: skip
    chosen = choose_efforts(found, search.reference, metrics)
    output = Path(args.output) if args.output else model.folder / PLANS
    about = {
        "pictures": Path(args.images).name, "every": args.every, "image_size": args.image_size,
        "objective": metrics, "precision": str(model.dtype).removeprefix("torch."), "seed": args.seed,
        "compared_with": str(search.compared_with), "reference": search.reference,
    }  # fmt: skip
    if args.efforts:
        efforts = {effort: str(plan) for effort, plan in chosen.items()}
        about["plans"] = {str(plan): figures for plan, figures in found.items()}
        save_efforts(output, model.hash, efforts, **about)
    else:
        efforts = {effort: f"plan:{len(plan.calls)}" for effort, plan in chosen.items()}
        save_plans(output, model.hash, found, efforts, **about)
    say(f"efforts: {', '.join(f'{effort} {chain}' for effort, chain in efforts.items()) or 'none'}")
    print(output)
    return 0


def _weight(text: str) -> float:
    from ..errors import SkipDiffError

    try:
        return float(text or 1)
    except ValueError:
        raise SkipDiffError(
            f"the weight {text!r} of a metric is not a number: use one, as in lpips:0.5"
        ) from None
