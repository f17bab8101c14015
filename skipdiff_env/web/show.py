"""Film strips and tables as HTML. Nothing that visitors send reaches a page unescaped."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from ..diffusion import Call
from ..images import RGB8, encode_image
from .requests import Line
from .study import Frame, Result

LONGEST = 25
"""Maximum number of frames that are shown of a chain in which nothing is decided."""
PLAN_LEGEND = (
    "Each cell is a network call, from the level reached to the next one, with the latent at the "
    "latter and the call's estimate x̂0. If the told level is below the level reached (a skip), excess noise "
    "is treated as detail."
)
QUANTILE = 0.995
"""Latents are shown so that this share of all values lies between black and white; 0 is grey."""
COLUMNS = {"psnr": "PSNR ↑", "ssim": "SSIM ↑", "lpips": "LPIPS ↓", "niqe": "NIQE ↓"}
DIGITS = {"psnr": 2, "ssim": 4, "lpips": 4, "niqe": 2}

CSS = """
.strip {display: grid; grid-template-columns: repeat(auto-fit, minmax(70px, 1fr)); gap: 10px 6px;
  padding: 4px 0 12px}
.strip figure {margin: 0; min-width: 0; max-width: 160px; font-size: 13px; line-height: 1.35;
  text-align: center}
.strip figure.coarse img {opacity: .6}
.strip img {width: 100%; display: block; margin: 0 0 2px; border-radius: 3px}
.strip b {display: block; border-radius: 3px; padding: 1px 0; color: #fff; background: #1a66c2}
.strip b.skip {background: #b95708}
.strip b.open {background: none; color: inherit; outline: 1px solid; outline-offset: -1px}
.strip small {display: block; opacity: .75}
.legend {font-size: 13px; opacity: .75; padding: 0 0 12px}
.numbers {overflow-x: auto}
.numbers table {border-collapse: collapse; width: 100%; margin: 0; font-variant-numeric: tabular-nums}
.numbers table, .numbers tr, .numbers th, .numbers td {border: 0 !important}
.numbers th, .numbers td {padding: 5px 10px; text-align: right; white-space: nowrap}
.numbers tr + tr td {border-top: 1px solid var(--border-color-primary) !important}
.numbers th:first-child, .numbers td:first-child {text-align: left}
.numbers th:first-child, .numbers td:first-child {position: sticky; left: 0;
  background: var(--background-fill-primary)}
.hint {display: none; font-size: 12px; opacity: .75; padding: 0 10px}
@media (max-width: 640px) {.hint {display: block}}
.moves i {display: inline-block; width: 10px; height: 14px; margin-right: 2px; border-radius: 2px;
  background: #1a66c2; vertical-align: middle}
.moves i.skip {background: #b95708}
.bad {border-left: 4px solid #c5221f; padding: 2px 10px}
"""


def message(text: str, bad: bool = False) -> str:
    """Format a line of plain text."""
    return f'<div class="bad" role="alert">{escape(text)}</div>' if bad else f"<div>{escape(text)}</div>"


def film_strip(frames: Sequence[Frame], waiting: bool = False) -> str:
    """Show latents, each with its estimate x̂0, and its decision or the plan's call that led to it.

    Args:
        frames: frames in order; levels above the first decision are CSA's. Of a long chain in which nothing
            is decided, at most :data:`LONGEST` are shown.
        waiting: whether the last frame waits for a decision.
    """
    decided = waiting or any(frame.action is not None for frame in frames)
    if not decided:
        frames = frames[:: -max(1, -(-len(frames) // LONGEST))][::-1]
    spread = np.concatenate([np.abs(frame.latent).ravel() for frame in frames])
    bound = max(float(np.quantile(spread, QUANTILE)), 1e-6)
    first = next((f.level for f in frames if f.action is not None), frames[0].level)
    cells = [_cell(f, bound, first, decided, waiting and f is frames[-1]) for f in frames]
    legend = f'<div class="legend">{PLAN_LEGEND}</div>' if any(frame.call for frame in frames) else ""
    return f'<div class="strip">{"".join(cells)}</div>{legend}'


def _cell(frame: Frame, bound: float, first: int, decided: bool, waiting: bool) -> str:
    shown = (frame.latent.transpose(1, 2, 0) / bound * 127.5 + 127.5).clip(0, 255).astype(np.uint8)
    where = f"level {frame.level}"
    if frame.call:
        where, said = f"{frame.reached:g} → {frame.call.to:g}", _told(frame.call, frame.reached)
    elif frame.action is not None:
        word = ("denoise", "skip")[frame.action]
        sure = "" if frame.skip is None else f"<small>p(skip) {frame.skip:.3f}</small>"
        said = f'<b class="{word}">{word}</b>{sure}'
    elif waiting:
        said = '<b class="open">your turn</b>'
    elif frame.level > first:
        said = "<small>coarse jump</small>"
    elif frame.level == 0:
        said = "<small>result</small>"
    else:
        said = "<b>denoise</b><small>always</small>" if decided else ""
    kind = "coarse" if frame.level > first else "fine"
    return (
        f'<figure class="{kind}">{_image(shown, f"latent at level {frame.level}")}'
        f"{_image(frame.x0, f'estimate at level {frame.level}')}{where}{said}</figure>"
    )


def _told(call: Call, reached: float) -> str:
    """Show the told level of a network call, in another colour for a skip, and the kind of its noise."""
    kind = ' class="skip"' if call.told < reached else ""
    noise = "result" if call.to == 0 else "all noise fresh" if call.fresh else f"η {call.eta:g}"
    return f"<b{kind}>told {call.told:g}</b><small>{noise}</small>"


def _image(picture: RGB8, what: str) -> str:
    data = base64.b64encode(encode_image(np.ascontiguousarray(picture), "frame.jpg")).decode()
    return f'<img alt="{escape(what)}" src="data:image/jpeg;base64,{data}">'


def number_table(rows: Sequence[tuple[str, Mapping[str, float | str | None], Result | None]]) -> str:
    """Show metrics, calls and seconds, one line per picture; a tooltip says why a metric has no value."""
    head = "".join(f"<th>{name}</th>" for name in ("", *COLUMNS.values(), "calls", "seconds"))
    lines = []
    for name, scores, result in rows:
        cells = [_score(scores.get(metric), DIGITS[metric]) for metric in COLUMNS]
        made = ("–", "–") if result is None else (str(result.evaluations), f"{result.seconds:.1f}")
        cells += [f"<td>{text}</td>" for text in made]
        lines.append(f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>")
    return _table(head, lines)


def _score(value: float | str | None, digits: int) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"<td>{value:.{digits}f}</td>"
    why = value if isinstance(value, str) else "no original" if value is None else "no value"
    return f'<td title="{escape(why)}">–</td>'


def comparison_table(lines: Sequence[Line], metric: str) -> str:
    """Tabulate the visitor, the policy and the optimum."""
    words = ("", "decisions", COLUMNS[metric], "reward", "regret", "calls")
    head = "".join(f"<th>{name}</th>" for name in words)
    body = []
    for line in lines:
        moves = "".join(f'<i class="{("denoise", "skip")[a]}"></i>' for a in line.actions)
        spoken = ", ".join(("denoise", "skip")[a] for a in line.actions)
        cells = [
            f'<td class="moves" title="{spoken}">{moves}</td>',
            _score(line.value, DIGITS[metric]),
            *(f"<td>{value:.4f}</td>" for value in (line.reward, line.regret)),
            f"<td>{line.evaluations}</td>",
        ]
        body.append(f"<tr><td>{escape(line.who)}</td>{''.join(cells)}</tr>")
    return _table(head, body)


def _table(head: str, lines: Sequence[str]) -> str:
    """Make a table that scrolls sideways if it is too wide, and says so on phones."""
    table = f'<div class="numbers" tabindex="0"><table><tr>{head}</tr>{"".join(lines)}</table></div>'
    return f'{table}<div class="hint">&#8592; the table scrolls sideways &#8594;</div>'
