"""The paper's tables and figures on your weights and images, beside what people use today.

    python -m benchmarks paper [--model NAME] [--images FOLDER_OR_TAR] [--quick]

Writes ``benchmarks/results/<model>/<images>/``: CSV, Markdown and PNG, and a page that ties them together.
A run that is stopped goes on where it stopped; rows that are there are used again.
"""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from skipdiff_env import SkipDiffError, load_pretrained
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.images import ImageSource, open_source
from skipdiff_env.policies import FixedStart, resolve_policy

from ..rivals import rivals
from . import cost, figures, pictures
from .claims import claims, niqe_disagreements
from .evaluate import Evaluation
from .page import Run, write_images, write_index, write_page
from .parts import Line, Part, Subject, build
from .results import Results
from .samplers import AGENT_PAIRS, Sampler, catalogue, shipped_agent
from .store import Row, Store
from .tables import write_table

RESULTS = Path(__file__).parents[1] / "results"
PARTS = ("1", "2", "3", "4", "5", "6", "ablation", "figure1", "figure5", "figure6", "samples", "starts")
QUICK_PARTS, QUICK_IMAGES = ("1", "2", "3", "5"), 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Command-line arguments."""
    parser.add_argument("--model", default="natural-4x", help="a shipped model's name or a model folder")
    parser.add_argument("--images", type=Path, help="folder or tar of HR images (default: the bundled ones)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    parser.add_argument("--seeds", type=int, default=1, help="noise seeds an image: 0 … SEEDS - 1")
    parser.add_argument(
        "--tables", nargs="+", choices=PARTS, metavar="NAME", help=f"of {', '.join(PARTS)}; all of them"
    )
    parser.add_argument("--quick", action="store_true", help="2 images; tables 1 or 2, 3 and 5")
    parser.add_argument("--start", type=int, help="fixed start at S = 10 (default: the model's)")
    parser.add_argument(
        "--agent", action="append", default=[], metavar="NAME=FILE",
        help=f"policy file for one of {', '.join(AGENT_PAIRS)} (that of its reward: the model's own, if any)",
    )  # fmt: skip
    parser.add_argument(
        "--variants", nargs="+", default=[], metavar="FOLDER", help="more models for the ablation table"
    )
    parser.add_argument("--ccsr", type=Path, metavar="FOLDER", help="a model of CCSR's, for rows of its own")
    parser.add_argument("--addsr", type=Path, metavar="FOLDER", help="a student of AddSR's, likewise")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], help="of the network (default: bfloat16 on CUDA alone)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="rounds of table 3")
    parser.add_argument("--out", type=Path, default=RESULTS, help="results folder")


@dataclass(frozen=True)
class Session:
    """A run of the command: what it measures and where the results go."""

    args: argparse.Namespace
    model: FrozenModel
    source: ImageSource
    subject: Subject
    agents: dict[str, Path]
    samplers: dict[str, Sampler]
    folder: Path
    wanted: tuple[str, ...]

    @property
    def about(self) -> str:
        """What pictures are made of."""
        return f"{self.model.hash} {self.model.dtype} {self.subject.skipdiff}"


def run(args: argparse.Namespace) -> int:
    """Evaluate, or finish an evaluation, and write everything."""
    session = open_session(args)
    session.folder.mkdir(parents=True, exist_ok=True)
    parts = available(session)
    keys = list(dict.fromkeys(key for part in parts for key in part.samplers))
    store = Store(session.folder / "rows.csv")
    evaluation = Evaluation(
        session.model,
        session.source,
        [session.samplers[key] for key in keys],
        store,
        range(args.seeds),
        limit(args),
    )
    announce(evaluation, session.model)
    rows = evaluation.run(progress=True)
    labels = {key: sampler.label for key, sampler in session.samplers.items()}
    if rows:
        more, lines, names = variants(session, store) if "ablation" in session.wanted else ([], [], {})
        results = Results([*rows, *more])
        labels |= names
        parts = [replace(p, lines=(*p.lines, *lines)) if p.name == "ablation" else p for p in parts]
        draw(session, parts, results, labels)
    else:
        results = None
    draw_rest(session)
    finish(session, len(evaluation.images), results)
    print(f"results: {session.folder / 'README.md'}")
    return 0


def limit(args: argparse.Namespace) -> int | None:
    """How many images."""
    return args.limit or (QUICK_IMAGES if args.quick else None)


def open_session(args: argparse.Namespace) -> Session:
    """Load what the arguments name.

    Raises:
        SkipDiffError: if one of them is wrong.
    """
    dtype = getattr(torch, args.dtype) if args.dtype else None
    model = load_pretrained(args.model, args.device, dtype)
    fine = model.schedule.steps // 10
    default = resolve_policy(args.start, fine, model.config.start)
    assert isinstance(default, FixedStart)
    agents = named_agents(args)
    others = rivals(args.ccsr, args.addsr, args.device, dtype)
    samplers = catalogue(model, default.start, agents) | others
    found = {s.label.removeprefix("SkipDiff, agent "): s.key for s in samplers.values() if "agent" in s.key}
    usual = next((name for name in agents if AGENT_PAIRS[name] == (10, False)), "")  # the model's own first
    subject = Subject(model.scale, model.schedule.steps, default.start, found, usual, tuple(others))
    wanted = args.tables or (QUICK_PARTS if args.quick else PARTS)
    named = tuple(f"table{name}" if name.isdigit() else name for name in wanted)
    images = args.images.stem if args.images else "bundled"
    folder = args.out / model.name / (f"{images}-quick" if args.quick else images)
    source = open_source(args.images)
    return Session(args, model, source, subject, agents, samplers, folder, named)


def named_agents(args: argparse.Namespace) -> dict[str, Path]:
    """Policy files by name: those given, and the model's own."""
    agents = shipped_agent(args.model)
    for given in args.agent:
        name, _, file = given.partition("=")
        if name not in AGENT_PAIRS or not Path(file).is_file():
            raise SkipDiffError(
                f"--agent {given}: give NAME=FILE with a file that exists and one of the names "
                + ", ".join(AGENT_PAIRS)
            )
        agents[name] = Path(file)
    return agents


def available(session: Session) -> list[Part]:
    """The wanted parts that rest on rows, without the lines that this model's T does not allow."""
    rule = "strided" if session.model.config.coarse_levels == "rebuilt" else "rebuilt"
    wanted = ["table5" if name == "starts" else name for name in session.wanted]
    parts = build(session.subject, rule, wanted)
    return [
        replace(part, lines=tuple(line for line in part.lines if line.sampler in session.samplers))
        for part in parts
    ]


def announce(evaluation: Evaluation, model: FrozenModel) -> None:
    """Say what is to be done and how long it may take."""
    missing, calls = sum(len(job.missing) for job in evaluation.jobs), evaluation.calls
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


def variants(session: Session, store: Store) -> tuple[list[Row], list[Line], dict[str, str]]:
    """Rows, lines and labels of ``--variants``: full chain, CSA alone and SkipDiff of other models."""
    rows: list[Row] = []
    lines, labels = [], {}
    for folder in session.args.variants:
        model = load_pretrained(folder, session.args.device, session.model.dtype)
        start = model.config.start or session.subject.start
        subject = Subject(model.scale, model.schedule.steps, start)
        samplers = catalogue(model, start)
        chosen = [samplers[key] for key in (subject.full, "csa-10", subject.fixed)]
        evaluation = Evaluation(
            model, session.source, chosen, store, range(session.args.seeds), limit(session.args)
        )
        rows += [replace(row, sampler=f"{row.sampler}@{model.hash}") for row in evaluation.run(progress=True)]
        for sampler in chosen:
            key = f"{sampler.key}@{model.hash}"
            what = f"{model.config.prediction}-prediction of the {model.config.target}"
            labels[key] = f"{model.name} ({what}): {sampler.label}"
            lines.append(Line(key))
    return rows, lines, labels


def draw(session: Session, parts: Sequence[Part], results: Results, labels: dict[str, str]) -> None:
    """Tables and figures of rows."""
    for part in parts:
        if part.name == "figure1":
            figures.draw_coarse(session.folder, part, results)
        elif part.name == "figure5":
            figures.draw_plane(session.folder, part, results)
        elif part.lines or part.name == "table6":
            write_table(session.folder, part, results, labels)
    if "starts" in session.wanted:
        figures.draw_starts(session.folder, session.subject, results)


def draw_rest(session: Session) -> None:
    """Table 3 and the pictures, which do not rest on rows."""
    subject, args = session.subject, session.args
    if "table3" in session.wanted:
        own = session.agents.get(subject.agent)
        models, policies = [session.model], [str(own) if own else subject.start]
        if torch.cuda.is_available():
            models.append(cost.authors_model("cuda"))
            policies.append(7)
        cost.table(session.folder, models, policies, 1 if args.quick else args.repeats, cost.SIZE)
    keys = ["bicubic", subject.full, "csa-10", subject.skipdiff, "ddim-16"]
    samples, latents = session.folder / "samples.png", session.folder / "figure6.png"
    if "samples" in session.wanted and not pictures.is_current(samples, session.about):
        shown = [session.samplers[key] for key in keys if key in session.samplers]
        short = {
            subject.full: "full chain",
            "csa-10": "CSA, S = 10",
            subject.skipdiff: "SkipDiff",
            "ddim-16": "DDIM, 16",
        }
        pictures.draw_samples(samples, session.model, shown, session.about, labels=short)
    if "figure6" in session.wanted and not pictures.is_current(latents, session.about):
        pictures.draw_latents(latents, session.model, session.about)


def finish(session: Session, count: int, results: Results | None) -> None:
    """The pages."""
    args, subject = session.args, session.subject
    write_images(session.folder / "images.csv", session.source, count)
    sentences = []
    if results:
        sentences = [*claims(results, subject), niqe_disagreements(results)]
    given = ["--model", session.model.name, "--images", args.images.name if args.images else ""]
    options = [f"--limit {args.limit}"] if args.limit else []
    options += [f"--seeds {args.seeds}"] if args.seeds != 1 else []
    options += [f"--dtype {args.dtype}"] if args.dtype else []
    options += ["--quick"] if args.quick else []
    options += ["--tables", *args.tables] if args.tables else []
    words = ["python -m benchmarks paper", *map(shlex.quote, given if args.images else given[:2]), *options]
    run_ = Run(
        session.model,
        args.images.stem if args.images else "the bundled photographs",
        count,
        args.seeds,
        subject.start,
        session.agents,
        " ".join(words),
        args.quick,
    )
    write_page(session.folder, run_, sentences)
    write_index(session.folder.parent, session.model.name)
