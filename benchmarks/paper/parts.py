"""Which samplers every table and figure shows, under which names, beside which of the paper's figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..measure.samplers import COARSE, COUNTS, PAIRS, counts, pair_start
from ..measure.tables import Line, Part
from .published import CASES, FACES, FACES_SCALE, NATURAL, REWARDS, STARTS, shown


@dataclass(frozen=True)
class Subject:
    """What is being measured."""

    scale: int
    top: int
    """T."""
    start: int
    """The fixed start at (10, T/10)."""
    agents: dict[str, str] = field(default_factory=dict)
    """Sampler keys of the agents there are, by name."""
    agent: str = ""
    """Name of the one that SkipDiff's rows show; empty for the fixed start."""
    others: tuple[str, ...] = ()
    """Keys of rivals with weights of their own."""
    refined: str = ""
    """That of them which is the model's own refiner; empty if there is none."""
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
    def skipdiff(self) -> str:
        """Key of SkipDiff as it ships: the agent if there is one, else the fixed start."""
        return self.agents.get(self.agent, self.fixed)

    def manual(self, start: int) -> str:
        """Key of a fixed start."""
        return f"skip-10-{self.fine}-{start}"


def rivals(subject: Subject) -> list[str]:
    """Keys of everything that Table 1 or 2 shows beside SkipDiff and what it is made of."""
    found = {kind: [f"{kind}-{n}" for n in counts(kind, subject.budgets)] for kind in COUNTS}
    ccsr = found.pop("ccsr")
    return [*sum(found.values(), []), "csa-20", *ccsr, *subject.others]


def main_table(subject: Subject) -> Part:
    """Table 1 of a model that enlarges faces 8 times, Table 2 of any other."""
    number, paper, evaluations = (1, FACES, 16) if subject.scale == FACES_SCALE else (2, NATURAL, 20)
    names = {} if subject.top == 20 else {"csa-20": "uniform chain, 20 steps"}
    both = dict.fromkeys([subject.skipdiff, subject.fixed])
    figures = {
        "bicubic": shown(paper["bicubic"]),
        subject.full: shown(paper["full"], 100),
        subject.skipdiff: shown(paper["skipdiff"], evaluations),
    }
    keys = ["bicubic", subject.full, "csa-10", *both, *rivals(subject)]
    lines = [Line(key, names.get(key, ""), figures.get(key, "")) for key in dict.fromkeys(keys)]
    what = "CelebA-HQ 8×" if number == 1 else "ImageNet 4×, step pair (5, 20)"
    note = f"The paper's column: {what}, its own data and weights."
    return Part(f"table{number}", f"Table {number}: quality", tuple(lines), note)


def cases(subject: Subject) -> Part:
    """Table 4: what CSA and FSR each do."""
    top, fine = subject.top, subject.fine
    lines = [
        Line(subject.full, f"neither: full chain ({top} steps)", shown(*CASES["neither"])),
        Line("csa-10", "CSA alone, S = 10", shown(*CASES["csa"])),
        Line(
            subject.agents.get("(1, T)", subject.full),
            f"FSR over the whole chain (1, {top})",
            shown(*CASES["fsr"]),
        ),
        Line(
            subject.agents.get("(10, T)", subject.skipdiff),
            f"CSA and FSR (10, {top})",
            shown(*CASES["csa, whole"]),
        ),
        Line(subject.skipdiff, f"CSA and FSR (10, {fine})", shown(*CASES["both"])),
    ]
    notes = ["The paper's column: faces 8×, with its agents."]
    if "(1, T)" not in subject.agents:
        notes.append(
            f"There is no agent for (1, {top}): the row never skips, so it is the full chain to the bit."
        )
    if "(10, T)" not in subject.agents:
        notes.append(
            f"There is no agent for (10, {top}): under `reset` a start up to {fine} gives the same image "
            f"with (10, {top}) as with (10, {fine}), so the row repeats that one."
        )
    return Part("table4", "Table 4: CSA and FSR", tuple(lines), " ".join(notes))


def starts(subject: Subject) -> Part:
    """Table 5: every manual start, the agent and the full chain."""
    lines = [
        Line(subject.manual(k), f"start {k}", shown(STARTS[k]) if k in STARTS and subject.fine == 10 else "")
        for k in range(subject.fine, 0, -1)
    ]
    if subject.agent:
        lines.append(Line(subject.skipdiff, f"agent ({subject.agent})", shown(REWARDS[subject.agent], 16)))
    lines.append(Line(subject.full, f"full chain ({subject.top} steps)", shown(FACES["full"], 100)))
    return Part("table5", "Table 5: manual starts", tuple(lines), "The paper's column: faces 8×.")


def rewards(subject: Subject) -> Part:
    """Table 6: the metric that was the agent's reward."""
    named = [name for name in ("NIQE", "LPIPS") if name in subject.agents]
    lines = [Line(subject.agents[name], f"reward 1/{name}", shown(REWARDS[name])) for name in named]
    missing = [name for name in ("NIQE", "LPIPS") if name not in named]
    note = "The paper's column: faces 8×."
    if missing:
        note += f" No agent trained on {' or on '.join(missing)} is there, so its row is absent."
    return Part("table6", "Table 6: the reward", tuple(lines), note)


def ablation(subject: Subject, rule: str) -> Part:
    """What can be changed without training; ``rule`` is where the model's topmost level does not lie."""
    base = [subject.full, "csa-10", subject.fixed]
    keys = [*base, *(f"{key}+unclamped" for key in base), *(f"{key}+{rule}" for key in base[1:])]
    note = (
        "x̂0 clamped to [-1, 1] or not on the way down; CSA's topmost level of the full table (strided) or of "
        "a table with S steps (rebuilt), which does not touch the full chain."
    )
    return Part("ablation", "Ablation: choices of the sampler", tuple(map(Line, keys)), note)


def coarse(subject: Subject) -> Part:
    """Figure 1: CSA alone, over S."""
    values = sorted({s for s in (*COARSE, 10, subject.top) if subject.top % s == 0})
    return Part("figure1", "Figure 1: CSA alone over S", tuple(Line(f"csa-{s}") for s in values))


def plane(subject: Subject) -> Part:
    """Figure 5: everything in the perception–distortion plane."""
    pairs = [p for p in PAIRS if p[0] * p[1] == subject.top]
    keys = [
        *main_table(subject).samplers,
        *starts(subject).samplers,
        *coarse(subject).samplers,
        *(f"skip-{s}-{f}-{pair_start(subject.start, (s, f))}" for s, f in pairs),
    ]
    return Part("figure5", "Figure 5: perception and distortion", tuple(map(Line, dict.fromkeys(keys))))


def build(subject: Subject, rule: str, wanted: Sequence[str]) -> list[Part]:
    """The parts that ``--tables`` names, of those that rest on rows."""
    table = main_table(subject)
    every = {
        table.name: table,
        "table4": cases(subject),
        "table5": starts(subject),
        "table6": rewards(subject),
        "ablation": ablation(subject, rule),
        "figure1": coarse(subject),
        "figure5": plane(subject),
    }
    main = {"table1": table.name, "table2": table.name}
    return [every[name] for name in dict.fromkeys(main.get(name, name) for name in wanted) if name in every]
