"""Defines the samplers that every table and figure shows, with their names and the paper's figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..measure.quality import Line, Part
from ..measure.sampler import Sampler
from ..measure.samplers import FAMILIES, PAPER_PAIR
from .published import CASES, FACES, FACES_SCALE, NATURAL, REWARDS, STARTS, Figures, shown

FACES_NOTE = "The paper's column: CelebA-HQ 8×, step pair (10, 10), its own choice of pictures and weights."


@dataclass(frozen=True)
class Subject:
    """The subject of the measurements."""

    scale: int
    top: int
    """Number T of levels of the model."""
    start: int
    """The fixed start at (10, T/10)."""
    samplers: Mapping[str, Sampler] = field(default_factory=dict)
    """The samplers that exist, by key."""
    agent: str = ""
    """Name of the agent that SkipDiff's rows show; empty for the fixed start."""
    spent: int = 0
    """Rounded mean evaluations of the agent on these images; 0 for the fixed start."""
    paper: str = ""
    """The paper's set that the images belong to, see :data:`.OWN_SETS`; empty: none, and no table shows
    figures of the paper."""

    @property
    def fine(self) -> int:
        """F of the usual pair."""
        return self.top // 10

    @property
    def budgets(self) -> tuple[int, ...]:
        """Numbers of evaluations at which every rival is run: those of the fixed start and of the agent."""
        return tuple(sorted({9 + self.start, self.spent or 9 + self.start}))

    @property
    def full(self) -> str:
        """The key of the full chain."""
        return f"csa-{self.top}"

    @property
    def fixed(self) -> str:
        """The key of SkipDiff with the fixed start."""
        return self.manual(self.start)

    @property
    def agents(self) -> dict[str, str]:
        """The keys of the agents that exist, by name."""
        return {sampler.agent: key for key, sampler in self.samplers.items() if sampler.agent}

    @property
    def skipdiff(self) -> str:
        """The key of SkipDiff as it ships: with the agent if there is one, else with the fixed start."""
        return self.agents.get(self.agent, self.fixed)

    @property
    def paper_pair(self) -> str:
        """The key of the step pair of the paper's Table 2, with the paper's number of evaluations."""
        return "skip-{}-{}-{}".format(*PAPER_PAIR)

    @property
    def refined(self) -> str:
        """The key of the model's own refiner with its chain; empty if there is none."""
        return next(iter(self.of("refined")), "")

    def manual(self, start: int) -> str:
        """Return the key of a fixed start."""
        return f"skip-10-{self.fine}-{start}"

    def of(self, family: str) -> list[str]:
        """Return the keys of a family, in its own order."""
        return [key for key, sampler in self.samplers.items() if sampler.family == family]

    def lines(self, rows: Iterable[tuple[str, str, str]]) -> tuple[Line, ...]:
        """Return the lines of the samplers that exist.

        Args:
            rows: key, label (empty for the sampler's own) and the paper's figures of each line.
        """
        return tuple(
            Line(key, label or self.samplers[key].label, published)
            for key, label, published in rows
            if key in self.samplers
        )

    @property
    def pairs(self) -> list[str]:
        """Keys of (5, 20) and (20, 5) at the fixed start's depth and, for photographs, :attr:`paper_pair`."""
        left_out = {self.paper_pair} if self.scale == FACES_SCALE else set()
        return [k for k in self.of("pair") if k.startswith(("skip-5-", "skip-20-")) and k not in left_out]

    def published(self, paper: str, figures: Figures, evaluations: int | None = None) -> str:
        """Format the paper's figures as a cell if the images are of its set ``paper``; else empty."""
        return shown(figures, evaluations) if self.paper == paper else ""

    def plain(self, keys: Iterable[str]) -> tuple[Line, ...]:
        """Return the lines of samplers under their own labels, each once."""
        return self.lines((key, "", "") for key in dict.fromkeys(keys))


def rivals(subject: Subject) -> dict[str, str]:
    """Return the keys in Table 1 or 2 besides SkipDiff and its parts, with other labels if there are any."""
    found: dict[str, str] = {}
    for family in (family for family in FAMILIES if family.rival):
        found |= dict.fromkeys(subject.of(family.name), "")
        found |= {key: label for key, label in family.borrows.items() if key != subject.full}
    return found


def main_table(subject: Subject) -> Part:
    """Define Table 1 for a model that enlarges faces 8 times, or Table 2 for any other model."""
    number = 1 if subject.scale == FACES_SCALE else 2
    figures: dict[str, str] = {}
    note = ""
    if subject.paper == "faces":
        figures = {
            "bicubic": shown(FACES["bicubic"]),
            subject.full: shown(FACES["full"], 100),
            subject.skipdiff: shown(FACES["skipdiff"], 16),
        }
        note = FACES_NOTE
    elif subject.paper == "natural":
        figures = {
            "bicubic": shown(NATURAL["bicubic"]),
            subject.full: shown(NATURAL["full"], 100),
            subject.paper_pair: shown(NATURAL["skipdiff"], 20),
        }
        note = "The paper's column: ImageNet 4×, step pair (5, 20), its own choice of pictures and weights."
    own = [
        "hr",
        "bicubic",
        "restored",
        subject.full,
        "csa-10",
        subject.skipdiff,
        subject.fixed,
        *subject.pairs,
    ]
    labels = dict.fromkeys(own, "") | rivals(subject)
    lines = subject.lines((key, label, figures.get(key, "")) for key, label in labels.items())
    return Part(f"table{number}", f"Table {number}: quality", lines, note)


def cases(subject: Subject) -> Part:
    """Define Table 4: the effects of CSA and FSR."""
    top, fine = subject.top, subject.fine
    alone, whole = (subject.agents.get(name) for name in ("(1, T)", "(10, T)"))
    rows = [
        (subject.full, f"neither: full chain ({top} steps)", "neither"),
        ("csa-10", "CSA alone, S = 10", "csa"),
        (alone or subject.full, f"FSR over the whole chain (1, {top})", "fsr"),
        (whole or subject.skipdiff, f"CSA and FSR (10, {top})", "csa, whole"),
        (subject.skipdiff, f"CSA and FSR (10, {fine})", "both"),
    ]
    notes = [FACES_NOTE.replace("step pair (10, 10)", "with its agents")] * (subject.paper == "faces")
    if alone is None:
        notes.append(
            f"There is no agent for (1, {top}): the row never skips, so it is the full chain to the bit."
        )
    if whole is None:
        notes.append(
            f"There is no agent for (10, {top}): under `reset` a start up to {fine} gives the same image "
            f"with (10, {top}) as with (10, {fine}), so the row repeats that one."
        )
    lines = subject.lines((key, label, subject.published("faces", *CASES[case])) for key, label, case in rows)
    return Part("table4", "Table 4: CSA and FSR", lines + subject.plain(subject.pairs), " ".join(notes))


def starts(subject: Subject) -> Part:
    """Define Table 5: every manual start, the agent and the full chain."""
    rows = [
        (subject.manual(k), f"start {k}", subject.published("faces", STARTS[k]) if k in STARTS else "")
        for k in range(subject.fine, 0, -1)
    ]
    if subject.agent:
        published = subject.published("faces", REWARDS[subject.agent], 16)
        rows.append((subject.skipdiff, f"agent ({subject.agent})", published))
    full = subject.published("faces", FACES["full"], 100)
    rows.append((subject.full, f"full chain ({subject.top} steps)", full))
    rows.append(("hr", "", ""))
    note = FACES_NOTE if subject.paper == "faces" else ""
    return Part("table5", "Table 5: manual starts", subject.lines(rows), note)


def rewards(subject: Subject) -> Part:
    """Define Table 6: the metrics that were the agents' rewards."""
    named = [name for name in REWARDS if name in subject.agents]
    rows = [
        (subject.agents[name], f"reward 1/{name}", subject.published("faces", REWARDS[name]))
        for name in named
    ]
    missing = [name for name in REWARDS if name not in named]
    notes = [FACES_NOTE] * (subject.paper == "faces")
    if missing:
        notes.append(f"No agent trained on {' or on '.join(missing)} is there, so its row is absent.")
    return Part("table6", "Table 6: the reward", subject.lines(rows), " ".join(notes))


def ablation(subject: Subject) -> Part:
    """Define the table of variants that need no training."""
    keys = [subject.full, "csa-10", subject.fixed, *subject.of("ablation")]
    note = (
        "x̂0 clamped to [-1, 1] or not on the way down; CSA's topmost level of the full table (strided) or of "
        "a table with S steps (rebuilt), which does not touch the full chain."
    )
    return Part("ablation", "Ablation: choices of the sampler", subject.plain(keys), note)


def coarse(subject: Subject) -> Part:
    """Define Figure 1: CSA alone, over S."""
    return Part("figure1", "Figure 1: CSA alone over S", subject.plain(subject.of("csa")))


def plane(subject: Subject) -> Part:
    """Define Figure 5: everything in the perception–distortion plane."""
    parts = (main_table(subject), starts(subject), coarse(subject))
    keys = [key for part in parts for key in part.samplers] + subject.of("pair")
    return Part("figure5", "Figure 5: perception and distortion", subject.plain(keys))


def build(subject: Subject, wanted: Sequence[str]) -> list[Part]:
    """Return the parts that ``--tables`` names, among those that are based on rows."""
    made = [make(subject) for make in (main_table, cases, starts, rewards, ablation, coarse, plane)]
    every = {part.name: part for part in made}
    main = dict.fromkeys(("table1", "table2"), made[0].name)  # a model has one of the two
    return [every[name] for name in dict.fromkeys(main.get(name, name) for name in wanted) if name in every]
