"""Fits the rule by which ``--model auto`` chooses between two models.

    python -m benchmarks auto --images val_set14_bsd20.tar

Validation pictures are degraded by every kind of fault at many strengths, and both models enlarge them with
default options. Thresholds on the measurements of :mod:`skipdiff_env.images.measure` are then chosen to
minimise the error of the chosen model, averaged over the kinds, while that of clean input rises by at most
1 %. The error is LPIPS times the root mean square error of luma: LPIPS alone prefers a sharp picture to a
true one, and the root mean square error alone prefers a blurred one. Writes
``auto.md``, ``auto.csv`` and the rows into ``benchmarks/results/degraded/<images>/``, and the rule into the
second model's folder. Existing rows are used again.
"""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from skipdiff_env import SkipDiffError, load_pretrained
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.diffusion.pretrained import model_folder
from skipdiff_env.files import write_atomically
from skipdiff_env.images import ImageSource, make_pair, open_source, shrink
from skipdiff_env.images.measure import Measured, measure
from skipdiff_env.images.photo import decode_photo
from skipdiff_env.upscale.choice import REAL, RULE, USUAL, Rule, rule_text, trained_range

from ..measure.evaluate import Evaluation
from ..measure.metrics import METRICS
from ..measure.options import BUNDLED, command_line, network_dtype
from ..measure.store import Store
from ..measure.tables import RESULTS, Report, Table
from .drawn import DRAWN, drawings
from .kinds import CLEAN, Kind, blur, known_kinds, noise, saved_again, shared_again
from .ways import default_way

KINDS = [
    Kind(CLEAN),
    *(Kind(f"JPEG {q}", "jpg", q) for q in (30, 50, 65, 75, 85, 90, 95)),
    *(Kind(f"WebP {q}", "webp", q) for q in (40, 60, 75, 90)),
    *(Kind(f"noise {s}", change=noise(s)) for s in (1, 2, 3, 4, 6, 9, 12, 18)),
    *(Kind(f"blur {s}", change=blur(s)) for s in (0.4, 0.55, 0.7, 0.85, 1.0, 1.2, 1.6)),
    Kind("twice 85, 75", "jpg", 75, shared_again(85)),
    Kind("twice 60, 50", "jpg", 50, shared_again(60)),
    Kind("twice 40, 95", "jpg", 95, saved_again(40)),
    Kind("text", of="text"),
    Kind("line art", of="line art"),
]
"""Kinds of inputs; their first words are the families, which have equal weight."""
NEVER = {"jpeg": 0.0, "webp": 0.0, "noise": 1e6, "blur": 1e6}
"""Thresholds that nothing exceeds."""
CLEAN_LOSS = 0.01
"""Maximum mean rise of the error of clean input, as a share of it."""
USED = [metric for metric in METRICS if metric.name in ("lpips", "psnr")]


class Quality(NamedTuple):
    """The quality of a result."""

    lpips: float
    psnr: float

    @property
    def log_error(self) -> float:
        """ln(LPIPS · RMSE) up to a constant."""
        return math.log(self.lpips) - self.psnr * math.log(10) / 20


@dataclass(frozen=True)
class Case:
    """A picture with one kind of fault."""

    kind: str
    seen: Measured
    usual: Quality
    """The result of the model for clean input."""
    real: Quality
    """The result of the other model."""

    @property
    def family(self) -> str:
        """The kind without its strength."""
        return self.kind.split()[0]

    @property
    def cost(self) -> float:
        """ln of the error of the other model over that of the model for clean input."""
        return self.real.log_error - self.usual.log_error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    parser.add_argument(
        "--models",
        nargs=2,
        default=[USUAL, REAL],
        metavar="NAME",
        help="the model for clean inputs and the model for the rest",
    )
    parser.add_argument("--images", type=Path, help="folder or tar of originals [the bundled photographs]")
    parser.add_argument("--pictures", type=int, default=31, help="number of originals, evenly spaced [31]")
    parser.add_argument(
        "--kinds",
        nargs="+",
        metavar="KIND",
        default=[kind.name for kind in KINDS],
        help="kinds of inputs to use [all]",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        help="precision of the network [bfloat16 on CUDA, else float32]",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="results folder")


def run(args: argparse.Namespace) -> int:
    """Compute the missing rows, choose the rule and write it."""
    usual, real = (load_pretrained(name, args.device, network_dtype(args)) for name in args.models)
    if trained_range(real.config) is None:
        raise SkipDiffError(
            f"{real.name} was not trained on faults: the second of --models must be one that was"
        )
    images = open_source(args.images)
    images = images.take(args.pictures, every=max(1, len(images) // args.pictures))
    stem = args.images.stem if args.images else BUNDLED
    folder = Path(args.out) / "degraded" / stem
    folder.mkdir(parents=True, exist_ok=True)
    kinds = known_kinds(args.kinds, KINDS)
    cases = list(measured_cases(usual, real, images, kinds, Store(folder / "auto_rows.csv")))
    rule = choose(cases)
    command = command_line("auto", args, add_arguments)
    report(cases, rule, len(images), stem, command).write(folder)
    models = {model.name: model.hash for model in (usual, real)}
    file = model_folder(args.models[1]) / RULE
    about = {"models": models, "chosen_on": stem, "pictures": len(images), **figures(cases, rule)}
    write_atomically(file, rule_text(rule, about))
    print(f"results: {folder / 'auto.md'}\nrule: {file}")
    return 0


def measured_cases(
    usual: FrozenModel, real: FrozenModel, images: ImageSource, kinds: Sequence[Kind], store: Store
) -> Iterator[Case]:
    """Evaluate both models on every picture with every kind of fault."""
    for kind in kinds:
        originals = drawings(kind.of, len(images)) if kind.of in DRAWN else images
        source = originals.degraded(kind)
        scores = []
        for model in (usual, real):
            evaluation = Evaluation(model, source, [default_way(model, model.name)], store, metrics=USED)
            found = evaluation.run(progress=True)
            scores.append([Quality(*(row.value(name) for name in Quality._fields)) for row in found])
        for index, (first, second) in enumerate(zip(*scores, strict=True)):
            hr = make_pair(source, index, scale=usual.scale).hr
            assert hr is not None  # the source holds originals
            photo = decode_photo(io.BytesIO(kind.file(shrink(hr, usual.scale))))
            yield Case(kind.name, measure(photo), first, second)


# -- the choice


def choose(cases: Sequence[Case]) -> Rule:
    """Choose the thresholds that give the lowest error, where all families have equal weight.

    One threshold after another is set to its best value (of several, the middle one), until none changes. If
    clean input then loses too much, its losses get twice the weight, and so on.
    """
    weight = 1.0
    while True:
        rule = _descent(cases, weight)
        if clean_loss(cases, rule) <= CLEAN_LOSS or weight > 1e4:
            return rule
        weight *= 2


def _descent(cases: Sequence[Case], clean_weight: float) -> Rule:
    values = _candidates(cases)
    cost = _costs(cases, clean_weight)
    rule, best = Rule(**NEVER), np.inf
    while True:
        before = best
        for name, candidates in values.items():
            tried = [replace(rule, **{name: value}) for value in candidates]
            losses = np.array([cost[_taken(cases, other)].sum() for other in tried])
            ties = np.flatnonzero(losses <= losses.min() + 1e-12)
            lowest = int(ties[len(ties) // 2])
            if losses[lowest] < best - 1e-12:
                rule, best = tried[lowest], float(losses[lowest])
        if best >= before - 1e-12:
            return rule


def _candidates(cases: Sequence[Case]) -> dict[str, list[float]]:
    """Return the thresholds to try: qualities in steps of 1, and values between the measured ones."""
    found = {"jpeg": [0.0, *map(float, range(30, 102))], "webp": [0.0, *map(float, range(30, 102))]}
    for name in ("noise", "blur"):
        seen = np.quantile([getattr(case.seen, name) or 0.0 for case in cases], np.linspace(0.02, 0.995, 120))
        found[name] = [NEVER[name], *(round(float(value), 2) for value in seen)]
    return found


def _costs(cases: Sequence[Case], clean_weight: float) -> np.ndarray:
    """Return the cost of choosing the second model in each case; families have equal weight."""
    families = [case.family for case in cases]
    share = {name: 1 / families.count(name) for name in families}
    share[CLEAN] = share.get(CLEAN, 0.0) * clean_weight
    return np.array([case.cost * share[case.family] for case in cases])


def _taken(cases: Sequence[Case], rule: Rule) -> np.ndarray:
    return np.array([rule(case.seen) for case in cases], bool)


def clean_loss(cases: Sequence[Case], rule: Rule) -> float:
    """Return the geometric mean rise of the error of clean input, as a share of it."""
    clean = [case for case in cases if case.kind == CLEAN]
    return float(np.exp(np.mean([case.cost * rule(case.seen) for case in clean])) - 1) if clean else 0.0


def figures(cases: Sequence[Case], rule: Rule) -> dict[str, float]:
    """Rate a rule: the share of cases in which it chooses the model with the smaller error, the geometric
    mean rise of the error over that model's, and the same two for LPIPS, whose mean is arithmetic."""
    taken = _taken(cases, rule)
    cost = np.array([case.cost for case in cases])
    usual, real = (np.array([getattr(case, name).lpips for case in cases]) for name in ("usual", "real"))
    lpips = np.where(taken, real, usual)
    return {
        "better": round(float((taken == (cost < 0)).mean()), 3),
        "loss": round(float(np.exp((cost * taken - np.minimum(cost, 0)).mean()) - 1), 4),
        "better_by_lpips": round(float((taken == (real < usual)).mean()), 3),
        "loss_of_lpips": round(float(lpips.mean() / np.minimum(usual, real).mean() - 1), 4),
        "clean_loss": round(clean_loss(cases, rule), 4),
    }


def rule_in_words(rule: Rule) -> str:
    """Say which photographs are for the second model."""
    found = []
    if coded := [(name, least) for name, least in (("JPEG", rule.jpeg), ("WebP", rule.webp)) if least > 0]:
        found.append(
            "was a " + " or a ".join(f"{name} of a quality below {least:g}" for name, least in coded)
        )
    if rule.noise < NEVER["noise"]:
        found.append(f"has noise of at least {rule.noise:g}")
    if rule.blur < NEVER["blur"]:
        found.append(f"has blur of at least {rule.blur:g} pixels")
    if not found:
        return "No photograph is for the second model."
    return f"A photograph is for the second model if it {', or '.join(found)}."


def report(cases: Sequence[Case], rule: Rule, pictures: int, stem: str, command: str) -> Report:
    """Report the measurements and the choices of the rule, one line per kind."""
    found = figures(cases, rule)
    note = (
        f"{pictures} pictures ({stem}), enlarged by both models with default options. {rule_in_words(rule)} "
        "This is the model with the smaller error (LPIPS times root mean square error) in "
        f"{found['better']:.0%} of the cases, and with the lower LPIPS in {found['better_by_lpips']:.0%}. "
        f"The geometric mean error is {found['loss']:.1%} above that of the better model of each case, and "
        f"the mean LPIPS {found['loss_of_lpips']:.1%}; the error of clean input changes by "
        f"{found['clean_loss']:+.1%}. These figures are for the pictures on which the rule was chosen. A "
        "threshold lies between two strengths that were tried, or beyond all of them. The columns show LPIPS "
        f"and PSNR. Made by `{command}`."
    )
    head = ["input", "quality seen", "noise seen", "blur seen", USUAL, REAL, "auto", "the second taken"]
    lines, data = [], [head]
    for kind in dict.fromkeys(case.kind for case in cases):
        some = [case for case in cases if case.kind == kind]
        taken = _taken(some, rule)
        usual, real = (np.array([getattr(case, name) for case in some]) for name in ("usual", "real"))
        auto = np.where(taken[:, None], real, usual)
        qualities = [coding.quality for case in some if (coding := case.seen.coding) and coding.quality]
        row = [
            kind,
            f"{np.median(qualities):.0f}" if qualities else "–",
            *(
                f"{np.median([getattr(case.seen, name) or 0.0 for case in some]):.2f}"
                for name in ("noise", "blur")
            ),
            *("{:.3f} / {:.2f}".format(*values.mean(0)) for values in (usual, real, auto)),
            f"{taken.mean():.0%}",
        ]
        lines.append(row)
        data.append(row)
    table = Table(head, lines)
    return Report("auto", "The model that a photograph gets by itself", note, [table], data)
