"""The plans in a model's folder: ``plans.json``.

``{"model": HASH, "plans": {"6": {"plan": TEXT, ...}}, "efforts": {"normal": "plan:6"}, ...}`` holds one plan
for each number of evaluations, and the chain of each effort, which may also be the text of another plan.
Further keys describe how the plans were chosen and how well they performed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..diffusion.folder import PLANS
from ..diffusion.protocol import DiffusionModel
from ..errors import SkipDiffError
from ..files import write_atomically
from .plan import Plan


def shipped_plans(model: DiffusionModel) -> dict[int, Plan]:
    """Return a model's plans by number of evaluations, in ascending order; empty without a file for these
    weights.

    Raises:
        SkipDiffError: if the file is damaged.
    """
    return _read(model)[0]


def shipped_efforts(model: DiffusionModel) -> dict[str, str]:
    """Return the chain of each effort, such as ``plan:6`` or ``100>26|20>0``; empty without a file for these
    weights.

    Raises:
        SkipDiffError: if the file is damaged.
    """
    return _read(model)[1]


def _read(model: DiffusionModel) -> tuple[dict[int, Plan], dict[str, str]]:
    """Return the plans and efforts of a model; both are empty without a file for these weights."""
    file = model.folder / PLANS if model.folder else None
    if file is None or not file.is_file():
        return {}, {}
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        if about["model"] != model.hash:
            return {}, {}
        plans = [Plan.read(entry["plan"]) for entry in about["plans"].values()]
        efforts = {str(effort): str(chain) for effort, chain in about.get("efforts", {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = str(error) if isinstance(error, SkipDiffError) else "no plans in the form that find-plan writes"
        raise SkipDiffError(f"{file} is damaged ({why}): make it again") from None
    return {len(plan.calls): plan for plan in sorted(plans, key=lambda plan: len(plan.calls))}, efforts


def save_plans(
    file: Path, model_hash: str, plans: dict[Plan, dict[str, Any]], efforts: dict[str, str], **about: Any
) -> None:
    """Write a ``plans.json`` with plans and their figures; ``about`` says how they were chosen."""
    entries = {str(len(plan.calls)): {"plan": str(plan), **figures} for plan, figures in plans.items()}
    content = {"model": model_hash, **about, "efforts": efforts, "plans": entries}
    write_atomically(file, json.dumps(content, indent=2).encode() + b"\n")


def save_efforts(file: Path, model_hash: str, efforts: dict[str, str], **about: Any) -> None:
    """Replace the efforts in a ``plans.json``; ``about`` says how they were chosen. The plans are kept.

    Raises:
        SkipDiffError: if the file is missing, damaged, or for other weights.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        plans, theirs = content.pop("plans"), content["model"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise SkipDiffError(
            f"{file} holds no plans from which efforts could be chosen: find plans first"
        ) from None
    if theirs != model_hash:
        raise SkipDiffError(
            f"{file} is for the weights {theirs}, not {model_hash}: find plans for the model first"
        )
    content |= {"efforts": efforts, "efforts_from": about, "plans": plans}
    write_atomically(file, json.dumps(content, indent=2).encode() + b"\n")


def read_plan(file: Path) -> Plan:
    """Return the plan in a user's file, ``{"plan": TEXT}``.

    Raises:
        SkipDiffError: if the file cannot be read or holds no plan.
    """
    try:
        return Plan.read(json.loads(file.read_text(encoding="utf-8"))["plan"])
    except OSError as error:
        raise SkipDiffError(f"{file} cannot be read ({error.strerror}): give the file of a plan") from None
    except (ValueError, KeyError, TypeError) as error:
        why = f" ({error})" if isinstance(error, SkipDiffError) else ""
        raise SkipDiffError(f'{file} holds no plan{why}: write {{"plan": "100>26|20>0"}}') from None


def shipped_plan(model: DiffusionModel, evaluations: str) -> Plan:
    """Return the model's plan with the given number of evaluations, such as ``"6"`` for ``plan:6``.

    Raises:
        SkipDiffError: if the model has no such plan; the message lists its plans.
    """
    plans = shipped_plans(model)
    if evaluations.isascii() and evaluations.isdigit() and int(evaluations) in plans:
        return plans[int(evaluations)]
    example = "'100>26|20>0'"
    if not plans:
        raise SkipDiffError(
            f"{model.name!r} has no plans: name another model, or write a plan like {example}"
        )
    there = ", ".join(f"plan:{n}" for n in plans)
    asked = f"plan:{evaluations}" if evaluations else "plan without a number of evaluations"
    raise SkipDiffError(f"{model.name!r} has no {asked}: use one of {there}, or write one like {example}")
