"""Strips and tables: what they say, and that nothing reaches the page unescaped."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from skipdiff_env.diffusion import Call
from skipdiff_env.web.requests import Line
from skipdiff_env.web.show import comparison_table, film_strip, message, number_table
from skipdiff_env.web.study import Frame, Result

EVIL = "<script>alert('x')</script>\""


def frame(level: int, action: int | None = None, skip: float | None = None, value: float = 0.0) -> Frame:
    picture = np.full((8, 12, 3), 200, np.uint8)
    return Frame(level, np.full((3, 8, 12), value, np.float32), picture, action, skip)


def captions(html: str) -> list[str]:
    return [re.sub(r"<[^>]*>", " ", figure).split("level ", 1)[1].strip() for figure in figures(html)]


def figures(html: str) -> list[str]:
    return re.findall(r"<figure.*?</figure>", html)


def test_a_strip_says_what_was_decided() -> None:
    frames = [frame(20), frame(3, 1, 0.8714), frame(2, 0, 0.25), frame(1), frame(0)]
    words = [" ".join(caption.split()) for caption in captions(film_strip(frames))]
    assert words == [
        "20 coarse jump", "3 skip p(skip) 0.871", "2 denoise p(skip) 0.250", "1 denoise always", "0 result",
    ]  # fmt: skip


def test_a_strip_of_a_plan() -> None:
    calls = [Call(100, 14, 0.5), Call(11, 2.5, fresh=True), Call(2.5, 0)]
    frames = [
        replace(frame(round(call.to)), call=call, reached=reached)
        for call, reached in zip(calls, (100, 14, 2.5), strict=True)
    ]
    html = film_strip(frames)
    words = [" ".join(re.sub(r"<[^>]*>", " ", figure).split()) for figure in figures(html)]
    assert words == ["100 → 14 told 100 η 0.5", "14 → 2.5 told 11 all noise fresh", "2.5 → 0 told 2.5 result"]
    assert [' class="skip"' in figure for figure in figures(html)] == [False, True, False]
    assert 'class="legend"' in html and 'class="legend"' not in film_strip([frame(1), frame(0)])


def test_a_long_strip_without_decisions_is_thinned() -> None:
    shown = captions(film_strip([frame(level) for level in range(99, -1, -1)]))
    assert len(shown) == 25 and shown[-1] == "0 result" and shown[0] == "96"


def test_a_strip_in_mid_game() -> None:
    words = [" ".join(c.split()) for c in captions(film_strip([frame(3, 0), frame(2)], waiting=True))]
    assert words == ["3 denoise", "2 your turn"]
    (only,) = captions(film_strip([frame(3)], waiting=True))
    assert only.split() == ["3", "your", "turn"]


def test_latents_are_shown_on_one_scale_with_zero_grey() -> None:
    html = film_strip([frame(3, 1, value=2.0), frame(2, 0, value=-1.0), frame(1, value=0.0)])
    greys = []
    for figure in figures(html):
        data = re.findall(r"base64,([^\"]+)", figure)
        with Image.open(io.BytesIO(base64.b64decode(data[0]))) as image:
            greys.append(np.asarray(image.convert("L")).mean())
    assert greys == pytest.approx([255, 64, 127], abs=2)


def test_numbers() -> None:
    picture = np.zeros((2, 2, 3), np.uint8)
    scores = {"psnr": 30.256, "ssim": None, "lpips": float("nan"), "niqe": f"too small {EVIL}"}
    html = number_table([(f"bi{EVIL}", scores, None), ("SkipDiff", scores, Result(picture, (), 17, 1.26))])
    cells = [re.sub(r"<[^>]*>", "|", line) for line in re.findall(r"<tr>.*?</tr>", html)]
    assert re.split(r"\|+", cells[2])[1:-1] == ["SkipDiff", "30.26", "–", "–", "–", "17", "1.3"]
    assert "<script" not in html and 'title="no original"' in html and 'title="no value"' in html


def test_the_comparison() -> None:
    html = comparison_table([Line(EVIL, (0, 1, 0), 12, 3.456, 0.28934, 0.0123)], "niqe")
    assert "<script" not in html
    assert re.findall(r'<i class="(\w+)"', html) == ["denoise", "skip", "denoise"]
    assert 'title="denoise, skip, denoise"' in html
    for number in ("3.46", "0.2893", "0.0123", "12"):
        assert f">{number}<" in html


def test_messages_are_text() -> None:
    for bad in (False, True):
        assert "<script" not in message(EVIL, bad) and "&lt;script" in message(EVIL, bad)
    assert 'role="alert"' in message("no", bad=True)
