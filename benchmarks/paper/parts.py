"""Which samplers every table and figure shows, under which names, beside which of the paper's figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..measure.quality import Line, Part
from ..measure.sampler import Sampler
from ..measure.samplers import FAMILIES
from .published import CASES, FACES, FACES_SCALE, NATURAL, REWARDS, STARTS, shown


@dataclass(frozen=True)
class Subject:
    """What is being measured."""

    scale: int
    top: int
    """T."""
    start: int
    """The fixed start at (10, T/10)."""
    samplers: Mapping[str, Sampler] = field(default_factory=dict)
    """Those that there are, by key."""
    agent: str = ""
    """Name of the one that SkipDiff's rows show; empty for the fixed start."""
    spent: int = 0
    """Rounded mean evaluations of the agent on these images; 0 for the fixed start."""

    @property
    def fine(self) -> int:
        """F of the usual pair."""
        return self.top // 10

    @property
    def budgets(self) -> tuple[int, ...]:
        """Evaluations at which every rival is run: those of the fixed start, and the agent's."""
        return tuple(sorted({9 + self.start, self.spent or 9 + self.start}))

    @property
    def full(self) -> str:
        """Key of the full chain."""
        return f"csa-{self.top}"

    @property
    def fixed(self) -> str:
        """Key of SkipDiff with the fixed start."""
        return self.manual(self.start)

    @property
    def agents(self) -> dict[str, str]:
        """Keys of the agents there are, by name."""
        return {sampler.agent: key for key, sampler in self.samplers.items() if sampler.agent}

    @property
    def skipdiff(self) -> str:
        """Key of SkipDiff as it ships: the agent if there is one, else the fixed start."""
        return self.agents.get(self.agent, self.fixed)

    @property
    def refined(self) -> str:
        """Key of the model's own refiner and its chain; empty if there is none."""
        return next(iter(self.of("refined")), "")

    def manual(self, start: int) -> str:
        """Key of a fixed start."""
        return f"skip-10-{self.fine}-{start}"

    def of(self, family: str) -> list[str]:
        """Keys of a family, in its own order."""
        return [key for key, sampler in self.samplers.items() if sampler.family == family]

    def lines(self, rows: Iterable[tuple[str, str, str]]) -> tuple[Line, ...]:
        """Lines of those samplers that there are.

        Args:
            rows: key, label (empty for the sampler's own) and the paper's figures.
        """
        return tuple(
            Line(key, label or self.samplers[key].label, published)
            for key, label, published in rows
            if key in self.samplers
        )

    def plain(self, keys: Iterable[str]) -> tuple[Line, ...]:
        """Lines of samplers under their own labels, each once."""
        return self.lines((key, "", "") for key in dict.fromkeys(keys))


def rivals(subject: Subject) -> dict[str, str]:
    """Keys of all that Table 1 or 2 shows beside SkipDiff and its parts; labels, if not their own."""
    found: dict[str, str] = {}
    for family in (family for family in FAMILIES if family.rival):
        found |= dict.fromkeys(subject.of(family.name), "")
        found |= {key: label for key, label in family.borrows.items() if key != subject.full}
    return found


def main_table(subject: Subject) -> Part:
    """Table 1 of a model that enlarges faces 8 times, Table 2 of any other."""
    number, paper, evaluations = (1, FACES, 16) if subject.scale == FACES_SCALE else (2, NATURAL, 20)
    figures = {
        "bicubic": shown(paper["bicubic"]),
        subject.full: shown(paper["full"], 100),
        subject.skipdiff: shown(paper["skipdiff"], evaluations),
    }
    own = dict.fromkeys(["bicubic", subject.full, "csa-10", subject.skipdiff, subject.fixed], "")
    lines = subject.lines(
        (key, label, figures.get(key, "")) for key, label in (own | rivals(subject)).items()
    )
    what = "CelebA-HQ 8×" if number == 1 else "ImageNet 4×, step pair (5, 20)"
    note = f"The paper's column: {what}, its own data and weights."
    return Part(f"table{number}", f"Table {number}: quality", lines, note)


def cases(subject: Subject) -> Part:
    """Table 4: what CSA and FSR each do."""
    top, fine = subject.top, subject.fine
    alone, whole = (subject.agents.get(name) for name in ("(1, T)", "(10, T)"))
    rows = [
        (subject.full, f"neither: full chain ({top} steps)", "neither"),
        ("csa-10", "CSA alone, S = 10", "csa"),
        (alone or subject.full, f"FSR over the whole chain (1, {top})", "fsr"),
        (whole or subject.skipdiff, f"CSA and FSR (10, {top})", "csa, whole"),
        (subject.skipdiff, f"CSA and FSR (10, {fine})", "both"),
    ]
    notes = ["The paper's column: faces 8×, with its agents."]
    if alone is None:
        notes.append(
            f"There is no agent for (1, {top}): the row never skips, so it is the full chain to the bit."
        )
    if whole is None:
        notes.append(
            f"There is no agent for (10, {top}): under `reset` a start up to {fine} gives the same image "
            f"with (10, {top}) as with (10, {fine}), so the row repeats that one."
        )
    lines = subject.lines((key, label, shown(*CASES[case])) for key, label, case in rows)
    return Part("table4", "Table 4: CSA and FSR", lines, " ".join(notes))


def starts(subject: Subject) -> Part:
    """Table 5: every manual start, the agent and the full chain."""
    paper = {k: shown(figures) for k, figures in STARTS.items()} if subject.fine == 10 else {}
    rows = [(subject.manual(k), f"start {k}", paper.get(k, "")) for k in range(subject.fine, 0, -1)]
    if subject.agent:
        rows.append((subject.skipdiff, f"agent ({subject.agent})", shown(REWARDS[subject.agent], 16)))
    rows.append((subject.full, f"full chain ({subject.top} steps)", shown(FACES["full"], 100)))
    return Part("table5", "Table 5: manual starts", subject.lines(rows), "The paper's column: faces 8×.")


def rewards(subject: Subject) -> Part:
    """Table 6: the metric that was the agent's reward."""
    named = [name for name in REWARDS if name in subject.agents]
    rows = [(subject.agents[name], f"reward 1/{name}", shown(REWARDS[name])) for name in named]
    missing = [name for name in REWARDS if name not in named]
    note = "The paper's column: faces 8×."
    if missing:
        note += f" No agent trained on {' or on '.join(missing)} is there, so its row is absent."
    return Part("table6", "Table 6: the reward", subject.lines(rows), note)


def ablation(subject: Subject) -> Part:
    """What can be changed without training."""
    keys = [subject.full, "csa-10", subject.fixed, *subject.of("ablation")]
    note = (
        "x̂0 clamped to [-1, 1] or not on the way down; CSA's topmost level of the full table (strided) or of "
        "a table with S steps (rebuilt), which does not touch the full chain."
    )
    return Part("ablation", "Ablation: choices of the sampler", subject.plain(keys), note)


def coarse(subject: Subject) -> Part:
    """Figure 1: CSA alone, over S."""
    return Part("figure1", "Figure 1: CSA alone over S", subject.plain(subject.of("csa")))


def plane(subject: Subject) -> Part:
    """Figure 5: everything in the perception–distortion plane."""
    parts = (main_table(subject), starts(subject), coarse(subject))
    keys = [key for part in parts for key in part.samplers] + subject.of("pair")
    return Part("figure5", "Figure 5: perception and distortion", subject.plain(keys))


def build(subject: Subject, wanted: Sequence[str]) -> list[Part]:
    """The parts that ``--tables`` names, of those that rest on rows."""
    made = [make(subject) for make in (main_table, cases, starts, rewards, ablation, coarse, plane)]
    every = {part.name: part for part in made}
    main = dict.fromkeys(("table1", "table2"), made[0].name)  # a model has one of the two
    return [every[name] for name in dict.fromkeys(main.get(name, name) for name in wanted) if name in every]
