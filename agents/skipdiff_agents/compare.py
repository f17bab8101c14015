"""Policies side by side: a CSV file that a broken-off comparison continues, and a table."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skipdiff_env.policies import PolicySpec

from .evaluate import Evaluator, Result, bootstrap

CONTEXT = ("model", "metric", "skip_rule", "coarse_steps", "fine_steps", "image_size", "policy")
OWN = ("image", "noise_seed", "reward", "value", "psnr", "ssim", "evaluations", "actions")


def identity(path: Path) -> str:
    """Name of a policy file that changes when its content does."""
    return f"{path.name}@{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"


def compare(
    evaluator: Evaluator, policies: Mapping[str, PolicySpec], file: Path | None = None
) -> dict[str, list[Result]]:
    """Play every policy on the evaluator's episodes.

    Args:
        evaluator: setting and episodes.
        policies: by name. A name stands for one policy: it is what a resumed comparison goes by.
        file: a CSV that gets a row for each episode as soon as its policy has played; episodes that it
            holds already are not played again.
    """
    others = [metric.name for metric in evaluator.others]
    known = _read(file, others) if file and file.exists() else {}
    results = {}
    for name, policy in policies.items():
        context = _context(evaluator, name)
        wanted = [(evaluator.setting.source.name(image), seed) for image, seed in evaluator.pairs]
        before = known.get(context, {})
        if all(pair in before for pair in wanted):
            results[name] = [before[pair] for pair in wanted]
            continue
        results[name] = evaluator(policy)
        if file:
            _append(file, context, results[name], others)
    return results


def _context(evaluator: Evaluator, policy: str) -> tuple[str, ...]:
    setting, process = evaluator.setting, evaluator.process
    values = (
        getattr(setting.model, "hash", ""), evaluator.metric.name, setting.skip_rule,
        process.coarse_steps, process.fine_steps, setting.side, policy,
    )  # fmt: skip
    return tuple(map(str, values))


def _read(file: Path, others: Sequence[str]) -> dict[tuple[str, ...], dict[tuple[str, int], Result]]:
    known: dict[tuple[str, ...], dict[tuple[str, int], Result]] = {}
    with open(file, newline="", encoding="utf-8") as opened:
        for row in csv.DictReader(opened):
            if any(not row.get(name) for name in others):
                continue
            result = Result(
                image=row["image"],
                noise_seed=int(row["noise_seed"]),
                reward=float(row["reward"]),
                metric=float(row["value"]),
                psnr=float(row["psnr"]),
                ssim=float(row["ssim"]),
                evaluations=int(row["evaluations"]),
                actions=tuple(map(int, row["actions"])),
                others=tuple(float(row[name]) for name in others),
            )
            context = tuple(row[name] for name in CONTEXT)
            known.setdefault(context, {})[result.image, result.noise_seed] = result
    return known


def _append(file: Path, context: Sequence[str], results: Sequence[Result], others: Sequence[str]) -> None:
    header = [*CONTEXT, *OWN, *others]
    new = not file.exists()
    if not new:
        with open(file, newline="", encoding="utf-8") as opened:
            before = next(csv.reader(opened), [])
        if before != header:
            raise ValueError(f"{file} has other columns: give another file, or the metrics it was begun with")
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        if new:
            writer.writerow(header)
        for r in results:
            row: list[Any] = [r.image, r.noise_seed, r.reward, r.metric, r.psnr, r.ssim, r.evaluations]
            writer.writerow([*context, *row, "".join(map(str, r.actions)), *r.others])


def markdown(
    results: Mapping[str, Sequence[Result]],
    against: str,
    metrics: Sequence[str],
    optimum: np.ndarray | None = None,
) -> str:
    """A table with a line for each policy.

    Args:
        results: of :func:`compare`, in the same order of episodes.
        against: the policy that the others are compared with, pair by pair (95 % bootstrap interval).
        metrics: names of the metric and the others.
        optimum: the best reward of each episode; adds regret and the share of the gap between
            ``against`` and the optimum that was closed.
    """
    baseline = np.array([r.reward for r in results[against]])
    columns = ["policy", "reward", f"reward − {against}", *metrics, "PSNR", "SSIM", "evaluations"]
    columns += [] if optimum is None else ["regret", "gap closed"]
    lines = [columns, ["---"] * len(columns)]
    for name, played in results.items():
        rewards = np.array([r.reward for r in played])
        difference = (
            "" if name == against else "{:+.5f} [{:+.5f}, {:+.5f}]".format(*bootstrap(rewards - baseline))
        )
        judged = [np.array([[r.metric, *r.others][i] for r in played]) for i in range(len(metrics))]
        judged += [np.array([r.psnr for r in played]), np.array([r.ssim for r in played])]
        evaluations = np.mean([r.evaluations for r in played])
        line = [
            name,
            f"{rewards.mean():.5f}",
            difference,
            *(f"{v.mean():.4f}" for v in judged),
            f"{evaluations:.1f}",
        ]
        if optimum is not None:
            gap = float((optimum - baseline).mean())
            closed = float((rewards - baseline).mean()) / gap if gap > 0 else float("nan")
            line += [f"{(optimum - rewards).mean():.5f}", "" if name == against else f"{100 * closed:.1f} %"]
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
