"""Tables and figures: their lines, and the paper's figures beside them."""

from __future__ import annotations

import re

import pytest

from benchmarks.paper.figures import families
from benchmarks.paper.parts import build, main_table
from benchmarks.paper.published import FACES, NATURAL, shown
from tests.benchmarks.made_rows import SUBJECT, subject


def test_every_sampler_but_bicubic_and_the_originals_has_a_place_in_the_plane():
    parts = {part.name: part for part in build(SUBJECT, ["figure5", "1", "table2", "table1"])}
    assert list(parts) == ["figure5", "table2"]  # a 4× model has no table 1
    groups = families(parts["figure5"], SUBJECT.samplers)
    assert sorted(sampler.key for _, some in groups for sampler in some) == sorted(
        {*parts["figure5"].samplers} - {"bicubic", "hr"}
    )
    assert main_table(subject(8)).name == "table1"


PUBLISHED = re.compile(r"\d+\.\d+ / 0\.\d+ / \d+\.\d+ / 0\.\d+")


@pytest.mark.parametrize(("scale", "paper"), [(4, ""), (4, "natural"), (8, ""), (8, "faces")])
def test_the_paper_s_figures_stand_beside_their_own_set_and_step_pair_alone(scale, paper):
    some = subject(scale, reward="NIQE", paper=paper)
    names = ["table1", "table4", "table5", "table6", "figure5", "ablation"]
    tables = {part.name: part for part in build(some, names)}
    found = {
        name: {line.sampler: line.published for line in part.lines if line.published}
        for name, part in tables.items()
    }
    main = f"table{1 if scale == 8 else 2}"
    if not paper:
        assert not any(found.values()) and not any("paper" in part.note for part in tables.values())
    elif paper == "natural":
        assert found.pop(main) == {
            "bicubic": shown(NATURAL["bicubic"]),
            "csa-100": shown(NATURAL["full"], 100),
            "skip-5-20-16": shown(NATURAL["skipdiff"], 20),
        }
        assert not any(found.values())
    else:
        assert found[main]["agent-10-10-0123"] == shown(FACES["skipdiff"], 16)
        assert len(found["table4"]) == 3 and len(found["table5"]) == 11 and len(found["table6"]) == 1
        assert not any(key.startswith(("skip-5-", "skip-20-")) for keys in found.values() for key in keys)
    assert all(PUBLISHED.match(cell) for cells in found.values() for cell in cells.values())


def test_step_pairs_stand_beside_one_another():
    for scale, start, pairs in (
        (4, 7, ["skip-5-20-14", "skip-20-5-4", "skip-5-20-16"]),
        (8, 4, ["skip-5-20-8", "skip-20-5-2"]),
    ):
        some = subject(scale, start)
        assert some.pairs == pairs
        tables = build(some, ["table1", "table4", "figure5"])
        assert len(tables) == 3
        for part in tables:
            assert {f"skip-10-10-{start}", *pairs} <= {*part.samplers}, part.name
