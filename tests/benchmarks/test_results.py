"""Means, intervals and sentences, on rows that were made up."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from benchmarks.measure.metrics import METRICS
from benchmarks.measure.quality import Line, Part, count, report
from benchmarks.measure.results import Results
from benchmarks.measure.sampler import Sampler
from benchmarks.measure.samplers import catalogue
from benchmarks.measure.store import Row
from benchmarks.paper.claims import claims, niqe_disagreements, optimum_starts, other_choices
from benchmarks.paper.few import few_steps
from benchmarks.paper.figures import families
from benchmarks.paper.parts import Subject, build, main_table, starts
from benchmarks.paper.published import FACES, NATURAL, REWARDS, shown
from skipdiff_env.diffusion import random_model, tiny_config


def subject(scale=4, start=7, reward="", budgets=(), paper="", **others):
    """What can be measured on a model of T = 100; with a reward there is an agent, too.

    Args:
        paper: which of the paper's sets the images are of.
        others: families of further samplers, by their keys.
    """
    samplers = catalogue(random_model(tiny_config()), start, budgets=budgets)
    made = {key: Sampler(key, key, lambda *_: None, frozenset(), family) for key, family in others.items()}
    if reward:
        key = "agent-10-10-0123"
        made[key] = Sampler(key, key, lambda *_: None, frozenset(), "agent", agent=reward)
    return Subject(scale, 100, start, samplers | made, reward, paper=paper)


SUBJECT = subject(reward="NIQE")


def rows(sampler, evaluations=16, images=8, seeds=2, start=0, seed=0, **means):
    """Rows around given means, with the same scatter for every sampler: differences are exact."""
    scatter = np.random.default_rng(seed).normal(0, 1, (images, seeds))
    values = {metric.name: 5.0 for metric in METRICS} | means
    return [
        Row("m", "float32 cpu", f"i{i}", s, sampler, scores, evaluations, start)
        for i in range(images)
        for s in range(seeds)
        for scores in [{name: value + scatter[i, s] for name, value in values.items()}]
    ]


def test_means_average_seeds_first_and_leave_out_what_is_missing():
    made = [
        Row("m", "d", image, seed, "a", {"psnr": value}, 1, 0)
        for image, seed, value in (
            ("x", 0, 1.0),
            ("x", 1, 3.0),
            ("y", 0, 8.0),
            ("y", 1, math.nan),
            ("z", 0, math.nan),
            ("z", 1, math.nan),
        )
    ]
    found = Results(made).estimate("a", "psnr")
    assert found.mean == pytest.approx((2 + 8) / 2)
    assert 2 <= found.low < found.mean < found.high <= 8


def test_a_sampler_with_fewer_images_is_paired_on_those():
    results = Results(rows("a", psnr=20.0) + rows("b", images=3, psnr=20.5))
    few = rows("b", images=3, psnr=20.5)
    assert results.estimate("b", "psnr") == Results(few).estimate("b", "psnr")
    assert results.estimate("a", "psnr").images == 8 and results.images == [f"i{i}" for i in range(8)]
    assert results.computed == {"float32 cpu": 8 * 2 + 3 * 2}
    gain = results.gain("b", "a", "psnr")
    assert gain.images == 3 and gain.mean == pytest.approx(0.5)  # the scatter of an image is the same


def test_intervals_cover_the_mean_as_often_as_they_say():
    rng, hits = np.random.default_rng(1), 0
    for _ in range(200):
        values = rng.normal(10, 2, 40)
        made = [Row("m", "d", f"i{i}", 0, "a", {"psnr": v}, 1, 0) for i, v in enumerate(values)]
        found = Results(made).estimate("a", "psnr")
        hits += found.low <= 10 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_differences_are_paired():
    results = Results(rows("a", psnr=20.0) + rows("b", psnr=20.5, niqe=4.0))
    assert results.difference("b", "a", "psnr").low == pytest.approx(0.5)
    assert results.difference("b", "a", "psnr").high == pytest.approx(0.5)
    assert (
        results.gain("b", "a", "niqe").mean == pytest.approx(1) and results.gain("b", "a", "niqe").sign == 1
    )
    assert results.gain("a", "b", "psnr").sign == -1 and results.gain("a", "a", "lpips").sign == 0
    spread = results.estimate("a", "psnr")
    assert spread.high - spread.low > 0.1


def made_up():
    """SkipDiff: better PSNR and LPIPS than the full chain, worse NIQE; best starts 7 (NIQE), 10 (LPIPS)."""
    found = rows("csa-100", 100, psnr=24.0, niqe=3.5, lpips=0.20) + rows(
        "agent-10-10-0123", psnr=25, niqe=4.0, lpips=0.19, start=7
    )
    for k in range(1, 11):
        found += rows(
            f"skip-10-10-{k}", 9 + k, psnr=24 + k / 10, niqe=4.0 + abs(k - 7), lpips=0.3 - k / 100, start=k
        )
    found += (
        rows("ddim-16", 16, psnr=26.0, niqe=6.0, lpips=0.19)
        + rows("ddim-50", 50)
        + rows("ccsr-16", 16, psnr=25, niqe=4, lpips=0.19, seed=9)
    )
    return Results(found)


def test_sentences_say_what_the_rows_say():
    text = claims(made_up(), SUBJECT)
    joined = "\n".join(text)
    assert "*Better PSNR than the full chain*: yes, " in joined and "(paired gain +1.00" in joined
    assert "*Better NIQE than the full chain*: no, " in joined and "(paired gain -0.50" in joined
    assert "*Better LPIPS than the full chain*: yes" in joined
    assert "*Fewer evaluations*: yes, 16 instead of 100." in joined
    inside = next(line for line in text if "lies inside the range 1 … 10*" in line)
    assert "*: yes by NIQE (start 7 against 10: paired gain +3.00" in inside
    assert "; no by LPIPS (start 9 against 10: paired gain -0.0100" in inside
    assert inside.endswith("Best means: 7 for NIQE, 10 for LPIPS, 10 for PSNR, 1 for SSIM.")
    # Start 7 is better by PSNR alone, 10 by PSNR and equal by LPIPS; NIQE is worse everywhere.
    assert "beats the full chain on PSNR, NIQE and LPIPS at once*: no." in joined
    assert "*The agent (NIQE) equals the best manual start* (here 7, chosen on these very images): " in joined
    assert "not told apart, paired gain in NIQE +0.00, interval" in joined
    assert "admits a loss of up to 0.00." in joined
    ddim = next(line for line in text if line.startswith("*DDIM"))
    assert "at 16 evaluations against SkipDiff at 16" in ddim
    assert (
        "better in PSNR (+1.00" in ddim
        and "worse in NIQE (-2.00" in ddim
        and "not told apart in LPIPS" in ddim
    )
    assert any(line.startswith("*CCSR") for line in text) and not any("DPM" in line for line in text)


def test_only_intervals_clear_of_zero_decide_where_the_best_start_lies():
    """Means alone say "inside"; scatter that is not shared, or two images, leave it open."""
    for images, said in ((40, "yes by NIQE"), (2, "undecided by NIQE")):
        made = [r for k in range(1, 11) for r in rows(f"skip-10-10-{k}", images=images, niqe=4 + abs(k - 7))]
        assert f"*: {said} (start 7 against 10" in "\n".join(claims(Results(made), SUBJECT)), images
    made = [r for k in range(1, 11) for r in rows(f"skip-10-10-{k}", seed=k, niqe=9 - 0.01 * (k == 7))]
    assert "*: undecided by NIQE" in "\n".join(claims(Results(made), SUBJECT))


def test_one_start_must_win_by_all_three_metrics():
    def said(**best):
        made = rows("csa-100", 100, psnr=24.0, niqe=4.0, lpips=0.2)
        for k in range(1, 11):
            made += rows(f"skip-10-10-{k}", **(best if k == 6 else {"psnr": 23.0, "niqe": 5.0, "lpips": 0.3}))
        return next(line for line in claims(Results(made), SUBJECT) if "at once" in line)

    assert "at once*: yes, 6 (of 10" in said(psnr=25.0, niqe=3.0, lpips=0.1)
    assert said(psnr=25.0, niqe=3.0, lpips=0.3).endswith("at once*: no.")
    assert said(psnr=25.0, niqe=3.0, lpips=0.2).endswith("at once*: undecided.")


def test_trends_over_s_stand_beside_the_paper_s():
    made = []
    for s in (2, 4, 5, 10, 20, 25, 50, 100):
        made += rows(f"csa-{s}", s, psnr=30 - s / 10, niqe=5 + s / 10, lpips=0.5)
    text = claims(Results(made), SUBJECT)
    assert "*CSA alone: PSNR falls with S, which is worse*: yes, Spearman's ρ -1.00" in "\n".join(text)
    assert "*CSA alone: NIQE falls with S, which is better*: no, Spearman's ρ +1.00" in "\n".join(text)
    assert "*CSA alone: LPIPS falls with S, which is better*: undecided" in "\n".join(text)


def test_an_agent_of_another_reward_is_judged_by_it():
    lpips = subject(8, reward="LPIPS", paper="faces")
    text = "\n".join(claims(made_up(), lpips))
    assert "*The agent (LPIPS) equals the best manual start* (here 10," in text
    assert "better, paired gain in LPIPS +0.0100" in text and "agent (NIQE)" not in text
    line = next(line for line in starts(lpips).lines if line.label == "agent (LPIPS)")
    assert line.published == shown(REWARDS["LPIPS"], 16) != shown(REWARDS["NIQE"], 16)
    *_, chain, originals = starts(lpips).lines
    assert chain.sampler == "csa-100" and chain.published == shown(FACES["full"], 100)
    assert originals.sampler == "hr" and not originals.published


def test_an_agent_s_possible_loss_is_said():
    made = rows("agent-10-10-0123", images=20, niqe=4.0, seed=1)
    made += [r for k in range(1, 11) for r in rows(f"skip-10-10-{k}", images=20, niqe=4.0)]
    results = Results(made)
    line = next(line for line in claims(results, SUBJECT) if "agent" in line)
    best = int(line.partition("(here ")[2].partition(",")[0])
    low = results.gain("agent-10-10-0123", f"skip-10-10-{best}", "niqe").low
    assert low < 0 and line.endswith(f"admits a loss of up to {-low:.2f}.")
    few = [r for r in made if r.image in ("i0", "i1")]
    assert ": undecided, paired" in next(line for line in claims(Results(few), SUBJECT) if "agent" in line)


def test_rivals_are_chosen_by_evaluations_and_family():
    """A start of 4 takes 13 evaluations: nothing at 16 is compared with it, trained rivals are."""
    trained = {"ccsr-2@0123abcd": "ccsr-stage-1", "ccsr-13@0123abcd+4567cdef": "ccsr-both"}
    trained["addsr-4@89ab0123"] = "addsr"
    high = subject(8, 4, **trained)
    made = rows("skip-10-10-4", 13) + rows("ddim-16", 16) + rows("dpm-10", 10) + rows("dpm-13", 13)
    made += rows("ccsr-2@0123abcd", 2) + rows("ccsr-13@0123abcd+4567cdef", 13, psnr=9.0) + rows("ccsr-13", 13)
    made += rows("addsr-4@89ab0123", 4) + rows("csa-20", 20)
    heads = [line.partition(":")[0] for line in claims(Results(made), high)]
    assert heads == [
        "*DDIM*",
        "*DPM-Solver++(2M) at 13 evaluations against SkipDiff at 13*",
        "*The plain uniform chain*",
        "*CCSR's sampler at 13 evaluations against SkipDiff at 13*",
        "*CCSR, stage 1 at 2 evaluations against SkipDiff at 13*",
        "*CCSR, both stages at 13 evaluations against SkipDiff at 13*",
        "*AddSR at 4 evaluations against SkipDiff at 13*",
    ]
    text = "\n".join(claims(Results(made), high))
    assert "not compared, for it was run at 16 evaluations or more and SkipDiff takes 13." in text
    keys = main_table(high).samplers
    assert {"ddim-13", "dpm-13", "ancestral-13", "ccsr-13", "ddim-16", "ancestral-16", *trained} < {*keys}
    assert Subject(8, 100, 4, spent=14).budgets == (13, 14)
    assert "ancestral-14" in main_table(subject(8, 4, budgets=[13, 14])).samplers


def test_a_few_images_tell_nothing():
    made = rows("csa-100", 100, images=4, psnr=24.0) + rows("agent-10-10-0123", images=4, psnr=25.0)
    assert "*Better PSNR than the full chain*: undecided" in claims(Results(made), SUBJECT)[0]


def test_claims_need_their_rows():
    assert claims(Results(rows("bicubic")), SUBJECT) == []


def test_other_models_and_samplers_against_their_own_chains():
    made = rows("csa-100+unclamped", psnr=24.0) + rows("skip-10-10-7+unclamped", psnr=25.0)
    made += rows("csa-100@ab", niqe=4.0) + rows("skip-10-10-7@ab", niqe=3.0, psnr=4.0)
    choices = [
        ("unclamped", "skip-10-10-7+unclamped", "csa-100+unclamped"),
        ("other (noise-prediction of the image)", "skip-10-10-7@ab", "csa-100@ab"),
    ]
    first, second = other_choices(Results(made), choices)
    assert first.startswith("*SkipDiff against the full chain, unclamped*: better in PSNR (+1.00, ")
    assert second.startswith(
        "*SkipDiff against the full chain, other (noise-prediction of the image)*: better in NIQE (+1.00, "
    )
    assert "worse in PSNR (-1.00" in second
    assert other_choices(made_up(), choices) == []


def test_niqe_s_two_variants():
    agree = Results(rows("a", niqe=3.0, niqe_full=3.0) + rows("b", niqe=4.0, niqe_full=4.0))
    assert "no two of the 2 samplers" in niqe_disagreements(agree)
    differ = Results(rows("a", niqe=3.0, niqe_full=5.0) + rows("b", niqe=4.0, niqe_full=4.0))
    assert "1 of 1 pairs of samplers in opposite ways: b and a" in niqe_disagreements(differ)


def test_the_optimum_is_the_best_start_of_each_image():
    results = made_up()
    assert set(optimum_starts(results, SUBJECT, "niqe")) == {7}
    assert set(optimum_starts(results, SUBJECT, "lpips")) == {10}


def test_tables_show_every_line_with_its_interval_and_the_paper_s_column():
    results, part = made_up(), Part("t", "T", (Line("csa-100", "chain", "1 / 2"), Line("ddim-16", "DDIM")))
    made = report(part, results)
    table = [line for line in made.text.splitlines() if line.startswith("|")]
    assert len(table) == 8 and all(line.count("|") == 11 for line in table[:4])
    assert table[2].startswith("| chain |") and table[2].endswith("| 100 | 1 / 2 |")
    assert count(results) == "8 images, 2 noise seeds each" and count(results) in made.note
    assert made.basis == count(results)
    assert len(made.data) == 3 and all(len(cells) == 2 + 3 * (len(METRICS) + 1) + 1 for cells in made.data)


def test_spearman_is_that_of_ranks():
    sizes = (2, 5, 10, 20)
    made = [
        row
        for s, value in zip(sizes, (1.0, 4.0, 9.0, 8.0), strict=True)
        for row in rows(f"csa-{s}", psnr=value)
    ]
    keys = [f"csa-{s}" for s in sizes]
    # Ranks 1 2 4 3: 1 - 6 * (1 + 1) / (4 * 15); the same scatter everywhere leaves nothing to chance.
    found = Results(made).spearman(keys, sizes, "psnr")
    assert (found.mean, found.low, found.high) == pytest.approx((0.8, 0.8, 0.8)) and found.sign == 1
    assert Results(made).spearman(keys, sizes, "ssim").mean == 0  # constant


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


def test_the_originals_are_what_grain_is_measured_by():
    made = rows("csa-100", 100, niqe=3.5) + rows("hr", 0, psnr=math.inf, niqe=5.0, lpips=0.0)
    made += rows("csa-10", 10, psnr=6.0, ssim=5.5, niqe=6.0, lpips=5.0)
    made += rows("skip-20-5-2", 21, psnr=5.7) + rows("bicubic", 0)
    faces = subject(8, 4, paper="faces")
    text = "\n".join(claims(Results(made), faces))
    assert "*The full chain has a lower NIQE than the originals themselves*: yes, 3." in text
    assert "(paired difference -1.50, interval -1.50 … -1.50)." in text
    assert "*CSA alone (S = 10) against the full chain*: better in PSNR (+1.00" in text
    assert "The paper's gains: PSNR +1.01, SSIM +0.0438, NIQE -1.79, LPIPS -0.0168." in text
    assert "*SkipDiff (20, 5), start 2 at 21 evaluations against the full chain*: better in PSNR" in text
    assert "The paper's gains" not in "\n".join(claims(Results(made), subject(8, 4)))
    table = report(Part("t", "T", (Line("hr", "HR"),)), Results(made)).text
    mean, spread = (line for line in table.splitlines() if line.startswith("| HR "))
    assert mean.split("|")[2].strip() == "–" == spread.split("|")[2].strip() and "inf" not in table


def test_the_fall_of_table_5_is_said():
    made = [
        row for k in range(1, 11) for row in rows(f"skip-10-10-{k}", psnr=24 + k / 100, lpips=0.2 - k / 1000)
    ]
    for paper, said in (("", ""), ("faces", " The paper: PSNR -2.05 dB, LPIPS × 3.15.")):
        (line,) = [
            s for s in claims(Results(made), subject(8, 4, paper=paper)) if s.startswith("*From start 9")
        ]
        assert line.startswith("*From start 9 to start 1*: PSNR -0.08 dB, interval -0.08 … -0.08; LPIPS × ")
        assert line.endswith(f".{said}") and ("The paper" in line) == bool(said)


def test_few_step_models_are_told_what_they_come_to():
    families_ = {"one-1": "ccsr-stage-1", "both-2": "ccsr-both", "student-1": "addsr", "student-4": "addsr"}
    made = subject(**families_)
    results = Results(
        rows("bicubic", 0, psnr=25.0)
        + rows("ccsr-1", 1, psnr=26.0, lpips=0.30)
        + rows("one-1", 1, psnr=26.5, lpips=0.25)
        + rows("ccsr-2", 2, psnr=26.0, lpips=0.25, niqe=6.0)
        + rows("ddim-2", 2, psnr=25.0, lpips=0.30, niqe=5.0)
        + rows("both-2", 2, psnr=25.9, lpips=0.19, niqe=5.1)
        + rows("student-1", 1, psnr=24.0, lpips=0.3, niqe=5.0)
        + rows("student-4", 4, psnr=25.5, lpips=0.2, niqe=4.5)
    )
    text = "\n".join(few_steps(results, made, "imagenet256_test"))
    assert (
        "*CCSR, stage 1 against the same sampler on the model itself, at 1 evaluation*: better in PSNR"
        in text
    )
    assert (
        "*both-2, beside 2 others at 2 evaluations*: worse than DDIM (η = 0) in NIQE; CCSR's sampler in"
        in text
    )
    assert "*student-4, beside 0 others at 4 evaluations*: none is better" in text
    for metric, limit, form in (("lpips", 0.185, ".4f"), ("psnr", 25.8, ".2f")):
        mean = results.mean("both-2", metric)
        kept = mean <= limit if metric == "lpips" else mean >= limit
        which = f"({'kept' if kept else 'missed'}: at {'most' if metric == 'lpips' else 'least'} {limit})"
        assert f"{metric.upper()} {mean:{form}} {which}" in text
    assert "*AddSR at 1 evaluation against bicubic*: " in text and "; worse in PSNR (-1.00, interval" in text
    assert "Limits of" not in "\n".join(few_steps(results, made, "photographs"))
    assert few_steps(Results(rows("ddim-2", 2)), made, "imagenet256_test") == []
