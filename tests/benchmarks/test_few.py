"""Sentences on models of few steps, on rows that were made up."""

from __future__ import annotations

from benchmarks.measure.results import Results
from benchmarks.paper.few import few_steps
from tests.benchmarks.made_rows import rows, subject


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
