"""Chooses one of the shipped models for a photograph: ``--model auto``.

The photograph is measured (:mod:`skipdiff_env.images.measure`), and a rule with thresholds decides between
``natural-4x``, which is for clean input, and ``natural-4x-real``. The rule, fitted to validation pictures by
``python -m benchmarks auto``, is a file in the latter's folder; without that file, ``auto`` means
``natural-4x``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..diffusion.folder import CONFIG, read_config
from ..diffusion.model import ModelConfig
from ..diffusion.pretrained import available_models
from ..errors import SkipDiffError
from ..images.measure import Measured

AUTO, USUAL, REAL = "auto", "natural-4x", "natural-4x-real"
"""``auto`` means one of the other two."""
RULE = "auto.json"
"""Name of the file that holds the rule, in the folder of the model for real photographs."""
_NOISE_TOLD, _BLUR_TOLD = 1.5, 0.65
"""Minimum noise and minimum blur that are reported, since texture and sharp edges also give small values. A
value that decides the choice is always reported."""


@dataclass(frozen=True)
class Range:
    """The strongest degradations that a model saw in training."""

    jpeg: float
    """The lowest JPEG quality, 1 … 100."""
    webp: float | None
    """The lowest WebP quality, 1 … 100; None if it saw no WebP."""
    noise: float
    """The largest σ in grey levels."""
    blur: float
    """The largest σ in input pixels."""


@dataclass(frozen=True)
class Rule:
    """Thresholds: a photograph with any fault beyond one of them is enlarged by ``natural-4x-real``."""

    jpeg: float
    """JPEG quality, of the file or an earlier one, below which ``natural-4x-real`` is used."""
    webp: float
    """WebP quality below which it is used."""
    noise: float
    """σ of noise in grey levels at and above which it is used."""
    blur: float
    """σ of blur in input pixels at and above which it is used."""

    def __call__(self, seen: Measured) -> bool:
        """Return whether a photograph is to be enlarged by ``natural-4x-real``."""
        least = {"JPEG": self.jpeg, "WebP": self.webp}
        coded = seen.coding is not None and seen.coding.below(least[seen.coding.name])
        return coded or _reaches(seen.noise, self.noise) or _reaches(seen.blur, self.blur)


@dataclass(frozen=True)
class Choice:
    """The model chosen for a photograph."""

    model: str
    notes: tuple[str, ...] = ()
    """The reasons, and warnings about faults that are too strong for the model, in words for the user."""


def choose_model(asked: str, look: Callable[[], Measured]) -> Choice:
    """Choose the model for a photograph: the one asked for or, for ``auto``, the one that the rule gives.

    Args:
        asked: name or folder of a model, or ``auto``.
        look: function that measures the photograph; it is called only if there is a choice, or if the model
            was trained on faults, in order to warn of faults in the photograph that are too strong.

    Raises:
        SkipDiffError: if ``look`` raises it, or if the file of the rule is damaged.
    """
    if asked != AUTO:
        named = available_models().get(asked, Path(asked))
        known = trained_range(read_config(named / CONFIG)) if (named / CONFIG).is_file() else None
        return Choice(asked, tuple(beyond(look(), known, named.name)) if known else ())
    folder = available_models().get(REAL)
    file = folder / RULE if folder else None
    if file is None or not file.is_file():
        return Choice(USUAL)
    rule, trained = read_rule(file), trained_range(read_config(file.parent / CONFIG))
    seen = look()
    model = REAL if rule(seen) else USUAL
    warnings = beyond(seen, trained) if trained and model == REAL else []
    return Choice(model, (f"{described(seen, rule)}: enlarged by {model}", *warnings))


def described(seen: Measured, rule: Rule | None = None) -> str:
    """Describe the faults of a photograph in words, such as ``looks like JPEG quality 60, noise 4.2``.

    Args:
        seen: what was measured.
        rule: rule whose reasons are named, however small they are.
    """
    faults = []
    if seen.coding:
        faults.append(f"{seen.coding} in an earlier file" if seen.former else str(seen.coding))
    if _reaches(seen.noise, min(_NOISE_TOLD, rule.noise) if rule else _NOISE_TOLD):
        faults.append(f"noise {seen.noise:.1f}")
    if _reaches(seen.blur, min(_BLUR_TOLD, rule.blur) if rule else _BLUR_TOLD):
        faults.append(f"blur {seen.blur:.2f} pixels")
    if faults:
        return f"looks like {', '.join(faults)}"
    return "shows too few pixels to be measured" if seen.noise is None else "looks clean"


def _reaches(value: float | None, least: float) -> bool:
    return value is not None and value >= least


def beyond(seen: Measured, trained: Range, model: str = REAL) -> list[str]:
    """Return warnings about faults that are visibly stronger than any that a model saw in training."""
    found = []
    lowest = {"JPEG": trained.jpeg, "WebP": trained.webp}
    least = lowest[seen.coding.name] if seen.coding else None
    if seen.coding and least is not None and seen.coding.below(least):
        found.append(f"{seen.coding} is below what {model} was trained on ({least:g} and more)")
    noise, blur = round(seen.noise or 0.0, 1), round(seen.blur or 0.0, 2)
    if noise > trained.noise:
        found.append(f"noise {noise:.1f} is more than {model} was trained on ({trained.noise:g})")
    found = [f"{text}: some of the damage will remain" for text in found]
    if blur > trained.blur:
        text = f"blur {blur:.2f} pixels is more than {model} was trained on ({trained.blur:g})"
        found.append(f"{text}: shrink the picture first")
    return found


def trained_range(config: ModelConfig) -> Range | None:
    """Return the degradations in the last leg of a model's training; None if its record lacks them."""
    try:
        faults = config.training["degradation"]
        webp = faults["webp"][0] if "webp" in faults else None
        found = Range(faults["jpeg"][0], webp, faults["noise"][1], faults["blur"][1])
        return found if _numbers(replace(found, webp=webp or 0)) else None
    except (KeyError, IndexError, TypeError, AttributeError):
        return None


def read_rule(file: Path) -> Rule:
    """Read the rule in a model's folder.

    Raises:
        SkipDiffError: if the file is damaged.
    """
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        rule = Rule(**about["rule"])
        if not _numbers(rule):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise SkipDiffError(
            f"{file} holds no rule for --model auto: name a model, or run python -m benchmarks auto"
        ) from None
    return rule


def rule_text(rule: Rule, about: Mapping[str, Any]) -> bytes:
    """Return the content of a rule's file; ``about`` says how the rule was chosen."""
    return json.dumps({**about, "rule": asdict(rule)}, indent=2).encode() + b"\n"


def _numbers(values: Rule | Range) -> bool:
    return all(isinstance(value, int | float) for value in asdict(values).values())
