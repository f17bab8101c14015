"""Compares policies: a CSV file from which an interrupted comparison continues, and a table."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skipdiff_env.chains import ChainSpec
from skipdiff_env.diffusion.protocol import identity_of
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.files import write_atomically

from .evaluate import Evaluator, Result, bootstrap, by_image
from .tables import Table

CONTEXT = (
    "model", "precision", "metric", "skip_rule", "coarse_steps", "fine_steps", "image_size", "policy",
)  # fmt: skip
OWN = ("episode", "image", "noise_seed", "reward", "value", "psnr", "ssim", "evaluations", "actions")

Known = dict[tuple[str, ...], dict[str, Result]]
"""Results by context, and then by the digest of an episode."""


def identity(path: Path) -> str:
    """Return a name for a policy file that changes with its content."""
    return f"{path.name}@{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"


def compare(
    evaluator: Evaluator, policies: Mapping[str, ChainSpec], file: Path | None = None
) -> dict[str, list[Result]]:
    """Play every policy on the evaluator's episodes.

    Args:
        evaluator: setting and episodes.
        policies: the policies by name. A resumed comparison identifies a policy by its name alone.
        file: a CSV file that gets a row for each episode as soon as a policy has played all of them. A policy
            for which the file already holds all episodes, with the same pixels and noise seeds, is not
            played again.

    Raises:
        SkipDiffError: if the file has other columns.
    """
    others = [metric.name for metric in evaluator.others]
    header = [*CONTEXT, *OWN, *others]
    known = _read(file, header) if file and file.exists() else {}
    # Pixels and noise seed tell an episode from all others; an image's name does not.
    episodes = [evaluator.setting.digest([pair]) if file else "" for pair in evaluator.pairs]
    results = {}
    for name, policy in policies.items():
        context = _context(evaluator, name)
        before = known.get(context, {})
        if all(episode in before for episode in episodes):
            results[name] = [before[episode] for episode in episodes]
            continue
        results[name] = evaluator(policy)
        if file:
            _append(file, header, context, episodes, results[name])
    return results


def _context(evaluator: Evaluator, policy: str) -> tuple[str, ...]:
    setting, process = evaluator.setting, evaluator.process
    values = (
        identity_of(setting.model, "a file of results"), setting.precision, evaluator.metric.name,
        setting.skip_rule,
        process.coarse_steps, process.fine_steps, setting.side, policy,
    )  # fmt: skip
    return tuple(map(str, values))


def _whole_lines(file: Path) -> bytes:
    """Return the content of a file, without an unterminated last line, even if it looks complete."""
    content = file.read_bytes()
    return content[: content.rfind(b"\n") + 1]


def _read(file: Path, header: Sequence[str]) -> Known:
    """Read the results in the file; rows in which a value is missing or not a number are left out."""
    known: Known = {}
    text = _whole_lines(file).decode(errors="replace")
    try:
        lines = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error:  # not text
        lines = []
    if file.stat().st_size and lines[:1] != [list(header)]:
        raise SkipDiffError(
            f"{file} has other columns: give another file, or the metrics that it was started with"
        )
    for cells in lines[1:]:
        row = dict(zip(header, cells, strict=False))
        try:
            result = Result(
                image=row["image"],
                noise_seed=int(row["noise_seed"]),
                reward=float(row["reward"]),
                metric=float(row["value"]),
                psnr=float(row["psnr"]),
                ssim=float(row["ssim"]),
                evaluations=int(row["evaluations"]),
                actions=tuple(map(int, row["actions"])),
                others=tuple(float(row[name]) for name in header[len(CONTEXT) + len(OWN) :]),
            )
        except (KeyError, ValueError):
            continue
        known.setdefault(tuple(row[name] for name in CONTEXT), {})[row["episode"]] = result
    return known


def _append(
    file: Path,
    header: Sequence[str],
    context: Sequence[str],
    episodes: Sequence[str],
    results: Sequence[Result],
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    before = _whole_lines(file) if file.exists() else b""
    if not before:
        writer.writerow(header)
    for episode, r in zip(episodes, results, strict=True):
        row: list[Any] = [episode, r.image, r.noise_seed, r.reward, r.metric, r.psnr, r.ssim, r.evaluations]
        writer.writerow([*context, *row, "".join(map(str, r.actions)), *r.others])
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, before + text.getvalue().encode())


def markdown(
    results: Mapping[str, Sequence[Result]],
    against: str,
    metrics: Sequence[str],
    optimum: np.ndarray | None = None,
) -> str:
    """Make a table with a line for each policy.

    Args:
        results: the results of :func:`compare`, in the same order of episodes.
        against: the policy that the others are compared with, pair by pair (95 % interval of
            :func:`.bootstrap`, over images).
        metrics: names of the evaluator's metric and of its other metrics.
        optimum: the best reward of each episode. If given, the table also has the regret, and the share of
            the gap between ``against`` and the optimum that each policy closes.
    """
    baseline = np.array([r.reward for r in results[against]])
    columns = ["policy", "reward", f"reward − {against}", *metrics, "PSNR", "SSIM", "evaluations"]
    columns += [] if optimum is None else ["regret", "gap closed"]
    lines = []
    for name, played in results.items():
        rewards = np.array([r.reward for r in played])
        paired = bootstrap(by_image(played, rewards - baseline))
        difference = "" if name == against else "{:+.5f} [{:+.5f}, {:+.5f}]".format(*paired)
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
    return Table(columns, lines).markdown()
