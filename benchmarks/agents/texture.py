"""Tests whether a rule on texture can predict the best start from the latents, on three sets of pictures.

    python -m benchmarks texture --model natural-4x --images natural256_train.tar \\
        --valid val_set14_bsd20.tar --test imagenet256_test.tar --agent natural-4x.safetensors

Agents learn on pictures that the network may have learned by heart, and are used on others. The same
questions are therefore asked on three sets: ``--images``; ``--valid``, which no network has seen and on which
the start is chosen; and ``--test``. All gains over that start are in log-% of quality (100 times the gain of
−log M), where M is LPIPS, or LPIPS times the root of NIQE-full:

- ``best start here``: the start that is best in hindsight for all pictures of the set;
- ``rule``: extremely randomised trees on the fourteen numbers of :func:`texture`, which predict the gain of
  every start. They are taught on other pictures of the same set (in five parts), on the training pictures, or
  on the unseen ones;
- ``agent``: the agents of ``--agent``;
- ``other noise``: the start that is best for the same picture under its other noise seeds. It shows how much
  of the optimum is due to the picture and not to the noise;
- ``optimum``: the best start of each picture and noise seed.

A second table shows the rule taught on more and more training pictures. Writes
``benchmarks/results/agents/<model>/<input>-texture.md`` and ``.csv``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipdiff_agents.evaluate import Evaluator, bootstrap
from skipdiff_agents.recording import RecordedSetting
from skipdiff_env import SkipDiffError
from skipdiff_env.diffusion.process import start_actions
from skipdiff_env.images.mixed import KINDS

from ..measure.options import made_by
from ..measure.tables import Report, Table
from .study import Study, add_study_arguments, open_study, say
from .table import other_noise

Numbers = NDArray[np.float64]

REWARDS: dict[str, dict[str, float]] = {
    "LPIPS": {"lpips": 1.0},
    "LPIPS, NIQE": {"lpips": 1.0, "niqe-full": 0.5},
}
"""The weights w of the rewards −Σ w log M, by the name of the reward and then by metric."""
SIGMAS = (1.0, 2.0, 4.0)
BLOCK = 8
PARTS = ("train", "valid", "test")
TITLES = {"train": "training pictures", "valid": "unseen pictures", "test": "test pictures"}
COUNTS = (100, 300, 1000)
"""Numbers of training pictures from which the rule learns, besides all of them."""
FOLDS, TREES = 5, 300


def texture(latents: np.ndarray) -> Numbers:
    """Describe a latent's texture by fourteen numbers.

    They are the log deviations of its high-passes (less a Gaussian blur of σ = 1, 2, 4 pixels), and the
    minimum, the deciles and the maximum of the log deviation of the first of these in blocks of 8 × 8 pixels.

    Args:
        latents: (B, 3, H, W), at least 8 pixels per side.

    Returns:
        float64 (B, 14).
    """
    from scipy.ndimage import gaussian_filter

    x = latents.astype(np.float64)
    highs = [x - gaussian_filter(x, (0, 0, sigma, sigma), mode="mirror") for sigma in SIGMAS]
    rows, columns = (side // BLOCK for side in x.shape[2:])
    cut = highs[0][..., : rows * BLOCK, : columns * BLOCK]
    blocks = cut.reshape(len(x), 3, rows, BLOCK, columns, BLOCK).std(axis=(1, 3, 5)).reshape(len(x), -1)
    found = [high.std(axis=(1, 2, 3)) for high in highs]
    found += list(np.quantile(blocks, np.linspace(0, 1, 11), axis=1))
    return np.log(np.maximum(np.stack(found, axis=1), 1e-6))


@dataclass(frozen=True)
class Choice:
    """A start for each episode of a set."""

    starts: NDArray[np.int64]
    """The starts, (episodes,), counted from 0."""
    evaluations: float
    """Mean number of network calls per episode."""


@dataclass
class Part:
    """The recorded episodes of one set, one row per episode."""

    setting: RecordedSetting
    evaluator: Evaluator
    size: int
    """Side of the latents that agents see, in pixels."""

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The image and noise seed of each episode, with the noise seeds of an image together."""
        return self.evaluator.pairs

    @cached_property
    def pictures(self) -> NDArray[np.int64]:
        """The number of the picture that each episode shows, in whatever quality."""
        kinds = len(KINDS) if self.setting.source.degrade else 1
        return np.array([image // kinds for image, _ in self.pairs])

    @cached_property
    def numbers(self) -> Numbers:
        """The texture of x_S1, see :func:`texture`."""
        return np.concatenate([texture(self.setting.latents(*pair, self.size)[:1]) for pair in self.pairs])

    def outcome(self, actions: Iterable[int]) -> int:
        """Return the outcome that decisions lead to."""
        graph, state = self.setting.graph, 0
        for level, action in zip(range(graph.fine_steps, 1, -1), actions, strict=True):
            state = int(graph.next[level, state, action])
        return state

    def quality(self, weights: dict[str, float]) -> Numbers:
        """Return 100 · −Σ w log M of the starts 1 … F, (episodes, F)."""
        recordings, fine = self.setting.recordings, self.setting.graph.fine_steps
        columns = [recordings.metrics.index(name) for name in weights]
        outcomes = [self.outcome(start_actions(k, fine)) for k in range(1, fine + 1)]
        values = np.stack([recordings.values(*pair)[outcomes][:, columns] for pair in self.pairs])
        return -100 * np.log(values) @ np.array(list(weights.values()))

    def starts(self, chosen: NDArray[np.int64]) -> Choice:
        """Return the choice of these starts, counted from 0, with its network calls."""
        return Choice(chosen, self.setting.process.coarse_steps + float(chosen.mean()))

    def played(self, policy: Any) -> Choice:
        """Return the starts that lead to the same pictures as a policy."""
        fine = self.setting.graph.fine_steps
        starts = {self.outcome(start_actions(k, fine)): k - 1 for k in range(1, fine + 1)}
        results = self.evaluator(policy)
        chosen = np.array([starts[self.outcome(result.actions)] for result in results])
        return Choice(chosen, float(np.mean([result.evaluations for result in results])))


def taught(numbers: Numbers, quality: Numbers, seed: int = 0) -> Any:
    """Fit trees that predict every start's gain over the episode's mean from a picture's numbers."""
    from sklearn.ensemble import ExtraTreesRegressor

    trees = ExtraTreesRegressor(TREES, min_samples_leaf=min(8, len(numbers)), random_state=seed, n_jobs=1)
    return trees.fit(numbers, quality - quality.mean(axis=1, keepdims=True))


def crosswise(numbers: Numbers, quality: Numbers, pictures: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the starts that rules choose when taught on other pictures of the same set, (episodes,)."""
    from sklearn.model_selection import GroupKFold

    chosen = np.empty(len(numbers), np.int64)
    folds = min(FOLDS, len(np.unique(pictures)))
    for learn, use in GroupKFold(folds).split(numbers, groups=pictures):
        chosen[use] = taught(numbers[learn], quality[learn]).predict(numbers[use]).argmax(axis=1)
    return chosen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    add_study_arguments(parser)
    parser.set_defaults(image_size=128, size=128)
    add = parser.add_argument
    add("--mixed", action="store_true", help="vary the inputs: clean, JPEG, noisy and blurred in turn")
    add(
        "--agent",
        nargs="*",
        default=[],
        metavar="FILE",
        help="exported agents to compare with; they must see latents of --size",
    )


def run(args: argparse.Namespace) -> int:
    """Record the episodes, fit the rules, compare them and write the page."""
    if not args.valid or args.valid_seeds < 2 or args.test_seeds < 2 or args.noise_seeds < 2:
        raise SkipDiffError(
            "texture needs --valid, and --noise-seeds, --valid-seeds and --test-seeds of at least 2"
        )
    if args.skip_rule != "reset":
        raise SkipDiffError(
            "the rule chooses among starts, which cover all outcomes only with --skip-rule reset: use that"
        )
    study = open_study(args, "niqe-full", args.mixed)
    study.record()
    parts = {name: _part(study, name) for name in PARTS}
    rows, curve = [], []
    for reward, weights in REWARDS.items():
        quality = {name: part.quality(weights) for name, part in parts.items()}
        usual = int(quality["valid"].mean(axis=0).argmax())
        rules = {name: taught(parts[name].numbers, quality[name]) for name in ("train", "valid")}
        for name, part in parts.items():
            rows.append([reward, name, usual, *_gains(part, quality[name], usual, rules, args.agent, name)])
            say(" ".join(map(str, rows[-1])))
        curve += [[reward, *line] for line in _curve(parts, quality, usual)]
    report = _report(study, args, rows, curve)
    report.write(study.folder)
    say("\n" + report.text)
    return 0


def _part(study: Study, name: str) -> Part:
    evaluator = study.evaluator(name)
    assert isinstance(evaluator.setting, RecordedSetting)
    return Part(evaluator.setting, evaluator, study.args.size)


Gain = tuple[float, float, float, float]
"""Mean gain, its lower and upper bound, and evaluations per episode."""
NOTHING = (np.nan,) * 4


def _gains(
    part: Part, quality: Numbers, usual: int, rules: dict[str, Any], agents: Sequence[str], name: str
) -> list[Any]:
    """Return the best start in hindsight, and the gain of every choice over ``usual``."""
    best = int(quality.mean(axis=0).argmax())
    carried = (
        None if of == name else rule.predict(part.numbers).argmax(axis=1) for of, rule in rules.items()
    )
    choices = [
        part.starts(np.full(len(quality), best)),
        part.starts(crosswise(part.numbers, quality, part.pictures)),
        *(None if starts is None else part.starts(starts) for starts in carried),
        *(part.played(agent) for agent in agents),
        part.starts(other_noise(quality, len({image for image, _ in part.pairs}))),
        part.starts(quality.argmax(axis=1)),
    ]
    return [best, *(NOTHING if c is None else gain(quality, usual, c, part.pictures) for c in choices)]


def gain(quality: Numbers, usual: int, choice: Choice, pictures: NDArray[np.int64]) -> Gain:
    """Return the gain of chosen starts over one for all, with the 95 % interval over pictures.

    Args:
        quality: quality of each episode and start, (episodes, F).
        usual: the one start, counted from 0.
        choice: the chosen starts.
        pictures: number of each episode's picture; pictures are drawn with all their episodes.
    """
    gains = np.take_along_axis(quality, choice.starts[:, None], axis=1)[:, 0] - quality[:, usual]
    numbers, counts = np.unique(pictures, return_counts=True)
    table = np.full((len(numbers), counts.max()), np.nan)
    for row, number, count in zip(table, numbers, counts, strict=True):
        row[:count] = gains[pictures == number]
    return *bootstrap(table), choice.evaluations


def _curve(parts: dict[str, Part], quality: dict[str, Numbers], usual: int) -> list[list[Any]]:
    """Return lines on the two other sets for rules taught on random subsets of the training pictures."""
    train = parts["train"]
    order = np.random.default_rng(0).permutation(np.unique(train.pictures))
    lines = []
    for count in (*(n for n in COUNTS if n < len(order)), len(order)):
        learn = np.isin(train.pictures, order[:count])
        rule = taught(train.numbers[learn], quality["train"][learn])
        others = ((parts[name], quality[name]) for name in ("valid", "test"))
        chosen = ((p, q, p.starts(rule.predict(p.numbers).argmax(axis=1))) for p, q in others)
        lines.append([count, *(gain(q, usual, choice, p.pictures) for p, q, choice in chosen)])
    return lines


def _report(study: Study, args: argparse.Namespace, rows: list[list[Any]], curve: list[list[Any]]) -> Report:
    agents = [Path(agent).stem for agent in args.agent]
    gained = [
        "best start here", "rule, other pictures of the set", "rule of training pictures",
        "rule of unseen pictures", *(f"agent {name}" for name in agents), "other noise", "optimum",
    ]  # fmt: skip
    head = ["reward", "pictures", "start chosen", "best start"]
    lines = [[r[0], TITLES[r[1]], str(r[2] + 1), str(r[3] + 1), *map(_cell, r[4:])] for r in rows]
    learned = [[line[0], str(line[1]), *map(_cell, line[2:])] for line in curve]
    numbers = [
        [*row[:2], row[2] + 1, row[3] + 1, *(f"{x:.6g}" for found in row[4:] for x in found)] for row in rows
    ]
    return Report(
        ("mixed" if args.mixed else "clean") + "-texture",
        f"Telling the best start from its texture: {study.model.name}",
        f"{study.describe()} Gains in log-% over the start chosen on unseen pictures, with 95 % bootstrap "
        "intervals over pictures, and evaluations an episode; a rule or an agent pays if its interval lies "
        f"above 0. {made_by('texture', args, add_arguments)}",
        [
            Table([*head, *gained], lines, left=2),
            "The rule of training pictures, by how many it learned from:",
            Table(["reward", "pictures", TITLES["valid"], TITLES["test"]], learned),
        ],
        [
            [*head, *(f"{name}{part}" for name in gained for part in ("", " low", " high", " evaluations"))],
            *numbers,
        ],
    )


def _cell(found: Gain) -> str:
    mean, low, high, evaluations = found
    return "" if np.isnan(mean) else f"{mean:+.2f} [{low:+.2f}, {high:+.2f}] in {evaluations:.1f}"
