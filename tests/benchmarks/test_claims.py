"""Sentences on the paper's claims, on rows that were made up."""

from __future__ import annotations

import math

from benchmarks.measure.quality import Line, Part, report
from benchmarks.measure.results import Results
from benchmarks.paper.claims import claims, niqe_disagreements, optimum_starts, other_choices
from benchmarks.paper.parts import Subject, main_table, starts
from benchmarks.paper.published import FACES, REWARDS, shown
from tests.benchmarks.made_rows import SUBJECT, made_up, rows, subject


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
