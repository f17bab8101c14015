"""Remakes the paper's tables and figures with your weights and images, next to samplers in use today.

    python -m benchmarks paper [--model NAME] [--images FOLDER_OR_TAR] [--quick]

Writes CSV, Markdown and PNG files to ``benchmarks/results/<model>/<images>/``, and a page that links them.
An interrupted run continues where it stopped; existing rows are used again.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from skipdiff_env import SkipDiffError, load_pretrained
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.images import ImageSource

from ..measure.drawing import made_of
from ..measure.evaluate import Evaluation
from ..measure.family import same_scale
from ..measure.options import (
    add_common,
    command_line,
    fixed_start,
    folder_name,
    named_agents,
    network_dtype,
    open_images,
    rows_file,
    said,
    trained_rivals,
    with_jpeg,
)
from ..measure.quality import Line, Part, report
from ..measure.results import Results
from ..measure.sampler import Sampler
from ..measure.samplers import AGENT_PAIRS, FAMILIES, catalogue
from ..measure.store import Row, Store
from . import cost, figures, pictures
from .claims import claims, niqe_disagreements, other_choices
from .few import few_steps
from .page import Run, write_images, write_index, write_page
from .parts import Subject, build
from .published import OWN_SETS

PARTS = (
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "ablation",
    "figure1",
    "figure5",
    "figure6",
    "samples",
    "rivals",
    "starts",
)
FEW = (1, 2)
"""Numbers of evaluations of CCSR that pictures show next to AddSR's."""
QUICK_PARTS, QUICK_IMAGES = ("1", "2", "3", "5"), 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    add_common(parser)
    parser.add_argument("--seeds", type=int, default=1, help="number of noise seeds per image [1]")
    parser.add_argument(
        "--tables",
        nargs="+",
        choices=PARTS,
        metavar="NAME",
        help=f"parts to make, of {', '.join(PARTS)} [all]",
    )
    parser.add_argument(
        "--quick", action="store_true", help="use 2 images, and make only tables 1 or 2, 3 and 5"
    )
    parser.add_argument(
        "--variants", nargs="+", default=[], metavar="FOLDER", help="further models for the ablation table"
    )
    parser.add_argument(
        "--variant-images", type=int, metavar="N", help="number of images for --variants [all]"
    )
    parser.add_argument("--repeats", type=int, default=3, help="number of rounds of table 3 [3]")


@dataclass(frozen=True)
class Session:
    """A run of the command: what it measures and where the results go."""

    args: argparse.Namespace
    model: FrozenModel
    source: ImageSource
    subject: Subject
    agents: dict[str, Path]
    variants: list[FrozenModel]
    folder: Path
    wanted: tuple[str, ...]

    @property
    def rows(self) -> Path:
        """The file in which rows are kept."""
        return rows_file(self.args, self.model)

    @property
    def about(self) -> str:
        """A description of what pictures are made from."""
        jpeg = f" q{self.args.jpeg}" if self.args.jpeg is not None else ""
        refined = f" {self.subject.refined}" if self.subject.refined else ""
        return f"{self.model.hash} {self.model.dtype} {self.subject.skipdiff}{refined}{jpeg}"

    @property
    def command(self) -> str:
        """The command that makes the same results again."""
        return command_line("paper", self.args, add_arguments)

    @property
    def made(self) -> str:
        """The command as pages state it."""
        return f"Made by `{self.command}`."

    def evaluation(
        self, model: FrozenModel, samplers: Sequence[Sampler], store: Store, first: int | None = None
    ) -> Evaluation:
        """Return the evaluation of a model's samplers on the seeds and the (first) images of this run."""
        count = min((n for n in (limit(self.args), first) if n), default=None)
        return Evaluation(model, self.source, samplers, store, range(self.args.seeds), count)


def run(args: argparse.Namespace) -> int:
    """Evaluate the samplers, or finish an evaluation, and write all results."""
    session = open_session(args)
    session.rows.parent.mkdir(parents=True, exist_ok=True)
    session.folder.mkdir(exist_ok=True)
    store = Store(session.rows)
    if {"table1", "table2", "figure5"} & {*session.wanted}:
        session = with_agent_s_budget(session, store)
    wanted = ["table5" if name == "starts" else name for name in session.wanted]
    parts = build(session.subject, wanted)
    keys = list(dict.fromkeys(key for part in parts for key in part.samplers))
    evaluation = session.evaluation(session.model, [session.subject.samplers[key] for key in keys], store)
    announce(evaluation, session.model)
    evaluation.run(progress=True)
    rows, results = everything(session, store, evaluation) if parts else [], None
    others: list[Variant] = []
    if rows:
        others = variants(session, store) if "ablation" in session.wanted else []
        lines = tuple(line for variant in others for line in variant.lines)
        parts = [replace(p, lines=p.lines + lines) if p.name == "ablation" else p for p in parts]
        results = Results([*rows, *(row for variant in others for row in variant.rows)])
        draw(session, parts, results)
    draw_rest(session)
    finish(session, len(evaluation.images), results, others)
    print(f"results: {session.folder / 'README.md'}")
    return 0


def everything(session: Session, store: Store, evaluation: Evaluation) -> list[Row]:
    """Return the stored rows for this run's images and seeds, of all samplers that have every row."""
    rows: list[Row] = []
    for sampler in session.subject.samplers:
        some = [
            store.find((session.model.hash, evaluation.dtype, image, seed, sampler))
            for image in evaluation.images
            for seed in range(session.args.seeds)
        ]
        rows += [row for row in some if row] if all(some) else []
    return rows


def with_agent_s_budget(session: Session, store: Store) -> Session:
    """Add rivals with as many evaluations as the agent takes on these images, which is measured first."""
    subject = session.subject
    if not subject.agent:
        return session
    rows = session.evaluation(session.model, [subject.samplers[subject.skipdiff]], store).run(progress=True)
    spent = round(sum(row.evaluations for row in rows) / len(rows))
    return open_session(session.args, spent) if spent not in subject.budgets else session


def limit(args: argparse.Namespace) -> int | None:
    """Return the number of images to use."""
    return args.limit or (QUICK_IMAGES if args.quick else None)


def open_session(args: argparse.Namespace, spent: int = 0) -> Session:
    """Load the model, the images and all else that the arguments name.

    Args:
        args: arguments of the command line.
        spent: see :class:`.Subject`.

    Raises:
        SkipDiffError: if an argument is wrong.
    """
    dtype = network_dtype(args)
    model = load_pretrained(args.model, args.device, dtype)
    start, agents = fixed_start(model, args.start), named_agents(args)
    usual = next((name for name in agents if AGENT_PAIRS[name] == (10, False)), "")  # the model's own first
    paper = OWN_SETS.get(folder_name(args), "")
    subject = Subject(model.scale, model.schedule.steps, start, agent=usual, spent=spent, paper=paper)
    every = catalogue(model, start, agents, subject.budgets, args.model, trained_rivals(args))
    subject = replace(subject, samplers=every)
    more = [open_variant(folder, args.device, model) for folder in args.variants]
    wanted = args.tables or (QUICK_PARTS if args.quick else PARTS)
    named = tuple(f"table{name}" if name.isdigit() else name for name in wanted)
    folder = args.out / model.name / (folder_name(args) + ("-quick" if args.quick else ""))
    return Session(args, model, open_images(args), subject, agents, more, folder, named)


def open_variant(folder: str, device: str, model: FrozenModel) -> FrozenModel:
    """Open a model of ``--variants``.

    Raises:
        SkipDiffError: if it does not fit into a table with ``model``.
    """
    variant = same_scale(load_pretrained(folder, device, model.dtype), folder, model.scale)
    if variant.schedule.steps % 10:
        raise SkipDiffError(
            f"{folder}: the tables take S = 10, which does not divide its T = {variant.schedule.steps}"
        )
    return variant


def announce(evaluation: Evaluation, model: FrozenModel) -> None:
    """Print what will be computed and how long it may take."""
    missing, calls = sum(job.rows for job in evaluation.jobs), evaluation.calls
    print(
        f"{model}\n{len(evaluation.images)} images, {len(evaluation.keys)} rows, {missing} of them missing: "
        f"at most {calls} network calls",
        flush=True,
    )
    if calls:
        size = model.image_size
        x, level = torch.zeros(1, 3, size, size, device=model.device), torch.ones(1, device=model.device) / 2
        model.predict(x, x, level)
        began = time.perf_counter()
        float(model.predict(x, x, level).mean())
        seconds = time.perf_counter() - began
        print(
            f"{seconds:.3f} s a call at {size}x{size}: about {calls * seconds / 60:.0f} minutes", flush=True
        )


@dataclass(frozen=True)
class Variant:
    """A model of ``--variants`` in the ablation table."""

    what: str
    rows: list[Row]
    lines: tuple[Line, Line, Line]
    """The lines of the full chain, CSA alone and SkipDiff."""


def variants(session: Session, store: Store) -> list[Variant]:
    """Evaluate full chain, CSA alone and SkipDiff of other models; their rows get keys of their own."""
    found = []
    first = session.args.variant_images
    for model in session.variants:
        start = model.config.start or session.subject.start
        every = catalogue(model, start)
        subject = Subject(model.scale, model.schedule.steps, start, every)
        chosen = [every[key] for key in (subject.full, "csa-10", subject.fixed)]
        what = f"{model.name} ({model.config.prediction}-prediction of the {model.config.target}"
        what += f", first {first} images)" if first else ")"
        rows = session.evaluation(model, chosen, store, first).run(progress=True)
        full, csa, skip = (Line(f"{s.key}@{model.hash}", f"{what}: {s.label}") for s in chosen)
        named = [replace(row, sampler=f"{row.sampler}@{model.hash}") for row in rows]
        found.append(Variant(what, named, (full, csa, skip)))
    return found


def draw(session: Session, parts: Sequence[Part], results: Results) -> None:
    """Write the tables and figures of rows, each with the command that made it."""
    made, subject = session.made, session.subject
    for part in parts:
        part = replace(part, note=f"{part.note} {made}".strip())
        if part.name == "figure1":
            figures.draw_coarse(session.folder, part, subject, results)
        elif part.name == "figure5":
            figures.draw_plane(session.folder, part, subject.samplers, results)
        elif part.lines or part.name == "table6":
            report(part, results).write(session.folder)
    if "starts" in session.wanted:
        figures.draw_starts(session.folder, subject, results, made)


def draw_rest(session: Session) -> None:
    """Write Table 3 and the pictures, which are not based on rows."""
    subject, args = session.subject, session.args
    if "table3" in session.wanted:
        own = session.agents.get(subject.agent)
        models, policies = [session.model], [str(own) if own else subject.start]
        if session.model.device.type == "cuda":
            models.append(load_pretrained(args.model, "cpu", network_dtype(args)))
            policies.append(policies[0])
        rounds = 1 if args.quick else args.repeats
        cost.table(session.folder, models, policies, rounds, cost.SIZE, session.made)
        if not args.quick:
            authors = cost.authors_model(session.model.device)
            # A round takes minutes without a GPU.
            repeats = args.repeats if authors.device.type == "cuda" else 1
            cost.table(session.folder, [authors], [7], repeats, cost.SIZE, session.made)
    keys = ["bicubic", subject.full, "csa-10", subject.skipdiff, "ddim-16", subject.refined]
    samples, latents = session.folder / "samples.webp", session.folder / "figure6.webp"
    photographs = with_jpeg(pictures.photographs(session.model), args.jpeg)
    if "samples" in session.wanted and made_of(samples) != session.about:
        shown = [subject.samplers[key] for key in keys if key in subject.samplers]
        short = {
            subject.full: "full chain",
            "csa-10": "CSA, S = 10",
            subject.skipdiff: "SkipDiff",
            "ddim-16": "DDIM, 16",
            subject.refined: "its refiner",
        }
        pictures.draw_samples(samples, session.model, shown, session.about, photographs, short)
    if "rivals" in session.wanted:
        draw_rivals(session, photographs)
    if "figure6" in session.wanted and made_of(latents) != session.about:
        pictures.draw_latents(latents, session.model, session.about, photographs)


def draw_rivals(session: Session, photographs: ImageSource) -> None:
    """Write pictures of CCSR and AddSR next to the full chain's and SkipDiff's, if these models exist."""
    subject = session.subject
    few = [key for key in subject.of("ccsr-both") if subject.samplers[key].steps in FEW] + subject.of("addsr")
    file, about = session.folder / "rivals.webp", " ".join([session.about, *few])
    if few and made_of(file) != about:
        shown = [subject.samplers[key] for key in ("bicubic", subject.full, subject.skipdiff, *few)]
        short = {subject.full: "full chain", subject.skipdiff: "SkipDiff"}
        pictures.draw_samples(file, session.model, shown, about, photographs, short)


def finish(session: Session, count: int, results: Results | None, others: Sequence[Variant]) -> None:
    """Write the pages."""
    args, subject = session.args, session.subject
    write_images(session.folder / "images.csv", session.source, count)
    sentences = None
    if results:
        sentences = claims(results, subject) + few_steps(results, subject, folder_name(session.args))
        sentences += other_choices(results, choices(subject, others))
        sentences.append(niqe_disagreements(results))
    run_ = Run(
        session.model, said(args), count, args.seeds, subject.start, session.agents, other_weights(session),
        session.command, os.path.relpath(session.rows, session.folder), results.computed if results else {},
        args.quick,
    )  # fmt: skip
    write_page(session.folder, run_, sentences)
    write_index(session.folder.parent, session.model.name, session.command)


def choices(subject: Subject, others: Sequence[Variant]) -> list[tuple[str, str, str]]:
    """List other samplers and models, each with its keys of SkipDiff and of the full chain."""
    unclamped = ("unclamped", f"{subject.fixed}+unclamped", f"{subject.full}+unclamped")
    return [unclamped, *((v.what, v.lines[2].sampler, v.lines[0].sampler) for v in others)]


def other_weights(session: Session) -> dict[str, str]:
    """Return the hashes of the rivals' and the variants' weights, by name."""
    titles = {family.name: family.title for family in FAMILIES}
    found = {
        titles[sampler.family]: " and refiner ".join(sampler.weights)
        for sampler in session.subject.samplers.values()
        if sampler.weights
    }
    return found | {f"variant {model.name}": model.hash for model in session.variants}
