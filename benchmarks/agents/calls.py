"""Compares agents on SkipDiff-v1 with the best fixed chain and the optimum, on inputs of mixed quality.

    python -m benchmarks agent-calls --model natural-4x-real --images natural256_train.tar \\
        --only natural256 --test imagenet256_test.tar --every 8

Under ``actions="jump"``, all chains of a picture are computed once, with one network call each. The optimum,
the best fixed chain and the agents then look them up. Every agent learns from the same number of decisions.
The agents are MaskablePPO, MaskablePPO that observes the price of a call (drawn anew in each episode), and a
bandit that chooses one of a few good chains. The tables also show the model's plans within the
budget of calls, which may skip and draw noise. Everything is compared with the chain or plan that is best on
the training pictures.
Writes ``benchmarks/results/agents/<model>/calls.md`` and ``.csv``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from skipdiff_agents.call_trees import CallTree, Shape, judged_plans, load_or_record, worth
from skipdiff_agents.evaluate import bootstrap
from skipdiff_agents.pairs import UNSEEN
from skipdiff_env import load_pretrained
from skipdiff_env.chains import Plan, shipped_plans
from skipdiff_env.diffusion import FrozenModel, image_key
from skipdiff_env.images import make_pair, mixed_quality, open_source
from skipdiff_env.images.mixed import KINDS
from skipdiff_env.training.data.held_out import read_list

from ..measure.options import command_line
from ..measure.tables import RESULTS, Report, Table, basis

JUDGES = ("lpips", "niqe-full", "ssim", "psnr", "residue")
"""The metrics that judge every chain, always together."""
WEIGHTS = {"lpips": 1.0, "niqe-full": 0.5}
"""The weights w of the reward -Σ w ln M."""
LEVELS = (80, 60, 45, 30, 20, 12, 7, 4)
"""The levels that calls may lead to, besides 0."""
BANDIT = 8
"""Number of chains that the bandit chooses from, see :func:`bandits_choice`."""
PRICES = (0.003, 0.1)
"""The range of prices with which an agent that observes the price learns."""


@dataclass(frozen=True)
class Part:
    """Recorded pictures, each under several noise seeds."""

    names: list[str]
    trees: list[list[CallTree]]
    """The trees by noise seed, and then by picture."""
    scores: NDArray[np.float64]
    """Scores by each of :data:`JUDGES`, (noise seeds, pictures, chains, judges). The chains that end on the
    nodes come first, followed by the model's plans."""

    @property
    def worth(self) -> NDArray[np.float64]:
        """-Σ w ln M, (noise seeds, pictures, chains)."""
        return worth(self.scores, JUDGES, WEIGHTS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    add = parser.add_argument
    add("--model", default="natural-4x-real", help="a shipped model's name or a model folder")
    add("--images", type=Path, required=True, help="training images")
    add("--only", metavar="LIST", help="use only the training images named in this list of held-out pictures")
    add("--train-images", type=int, default=80, help="number of training images [80]")
    add("--test", type=Path, required=True, help="test images, in each of the four qualities")
    add("--test-images", type=int, default=12, help="number of test images [12]")
    add("--every", type=int, default=1, metavar="K", help="take every K-th training and test image [1]")
    add("--image-size", type=int, default=128, help="side of the crops in pixels [128]")
    add("--size", type=int, default=32, help="side in pixels of the latents that agents see [32]")
    add("--budget", type=int, default=4, help="maximum number of network calls of a chain [4]")
    add("--price", type=float, default=0.02, help="price of a network call, in units of ln M [0.02]")
    add("--timesteps", type=int, default=20_000, help="number of decisions each agent learns from [20000]")
    add("--seeds", type=int, default=3, help="number of training seeds per agent [3]")
    add("--runs", type=Path, default=Path("runs/agents"), help="folder of recordings [runs/agents]")
    add("--out", type=Path, default=RESULTS / "agents", help="folder of the results")


def run(args: argparse.Namespace) -> int:
    """Record the episodes, train the agents and compare them."""
    torch.set_num_threads(1)
    model = load_pretrained(args.model, "cpu")
    shape = Shape(model.schedule.steps, tuple(u for u in LEVELS if u < model.schedule.steps), args.budget)
    plans = [plan for count, plan in shipped_plans(model).items() if count <= args.budget]
    training = recorded(
        args, model, shape, plans, args.images, args.train_images, every_kind=False, seeds=(0, 1)
    )
    test = recorded(
        args, model, shape, plans, args.test, args.test_images, every_kind=True, seeds=(UNSEEN, UNSEEN + 1)
    )
    report = compare(args, model, shape, plans, training, test)
    report.write(args.out / model.name)
    print(report.text)
    return 0


def recorded(
    args: argparse.Namespace, model: FrozenModel, shape: Shape, plans: Sequence[Plan], path: Path, count: int,
    every_kind: bool, seeds: Sequence[int],
) -> Part:  # fmt: skip
    """Return the trees of some pictures in mixed quality, recorded if missing, and the scores of plans."""
    source = open_source(path)
    if args.only and path == args.images:
        source = source.only(read_list(args.only))
    source = mixed_quality(source.take(count, every=args.every), every_kind=every_kind)
    what = [model.hash, shape.levels, shape.budget, JUDGES, args.size]
    folder = args.runs / "trees" / hashlib.blake2b(json.dumps(what).encode(), digest_size=6).hexdigest()
    trees: list[list[CallTree]] = [[] for _ in seeds]
    scores: list[list[NDArray[np.float64]]] = [[] for _ in seeds]
    names = []
    for i in tqdm(range(len(source)), desc=f"recording {path.name}", unit="picture"):
        pair = make_pair(source, i, scale=model.scale, image_size=args.image_size)
        names.append(pair.name)
        for seed, row, judged in zip(seeds, trees, scores, strict=True):
            file = folder / f"{image_key(pair.lr):016x}-{seed}.npz"
            tree = load_or_record(
                file, model=model, pair=pair, noise_seed=seed, shape=shape, metrics=JUDGES, size=args.size
            )
            row.append(tree)
            judged.append(np.concatenate([tree.scores, judged_plans(model, pair, seed, plans, JUDGES)]))
    return Part(names, trees, np.array(scores))


def compare(
    args: argparse.Namespace, model: FrozenModel, shape: Shape, plans: Sequence[Plan], training: Part,
    test: Part,
) -> Report:  # fmt: skip
    """Report what each way of choosing a chain gains over the best fixed chain on the test pictures."""
    price, nodes = args.price, len(shape.spent)
    spent = np.array([*shape.spent, *(len(plan.calls) for plan in plans)])
    net = training.worth - price * spent  # (seeds, pictures, chains)
    fixed = int(net.mean(axis=(0, 1)).argmax())
    some = bandits_choice(net[..., :nodes])
    chosen: dict[str, list[NDArray[np.int64]]] = {}
    """By name and then by training seed: the chosen nodes of the test trees, (noise seeds, pictures)."""
    ours = test.worth - price * spent
    all_alike = np.full(ours.shape[:2], fixed)
    best = shape.plan(fixed) if fixed < nodes else plans[fixed - nodes]
    chosen[f"best fixed chain ({best})"] = [all_alike]
    for number, plan in enumerate(plans, nodes):
        chosen[f"plan of {len(plan.calls)} calls"] = [np.full(ours.shape[:2], number)]
    for name, told, among in (
        ("MaskablePPO", price, None),
        (f"MaskablePPO, told prices {PRICES[0]:g} … {PRICES[1]:g}", PRICES, None),
        (f"bandit over {len(some)} chains", price, some),
    ):
        chosen[name] = [
            trained_and_played(args, shape, training, test, told, among, seed) for seed in range(args.seeds)
        ]
    chosen["optimum"] = [ours[..., :nodes].argmax(axis=2)]
    chosen["optimum under the other noise seed"] = [ours[::-1, :, :nodes].argmax(axis=2)]
    lines: list[list[str]] = []
    data: list[list[Any]] = [["choice", "training_seeds", "gain", "gain_low", "gain_high", "calls", *JUDGES]]
    found = {name: gains(ours, runs, all_alike) for name, runs in chosen.items()}
    for name, runs in chosen.items():
        mean, low, high = bootstrap(found[name])
        calls = float(np.mean([spent[which].mean() for which in runs]))
        judged = [
            float(np.nanmean([_at(test.scores[..., j], which) for which in runs])) for j in range(len(JUDGES))
        ]
        by_seed = ", ".join(f"{100 * value:+.1f}" for value in found[name].mean(axis=(0, 1)))
        lines.append(
            [name, f"{100 * mean:+.1f} ({100 * low:+.1f} … {100 * high:+.1f})", by_seed * (len(runs) > 1),
             f"{calls:.2f}", *(f"{value:.4g}" for value in judged)]
        )  # fmt: skip
        data.append([name, len(runs), mean, low, high, calls, *judged])
    note = (
        f"`{command_line('agent-calls', args, add_arguments)}`: model hash `{model.hash}`, levels "
        f"{', '.join(f'{u:g}' for u in shape.levels)}, at most {shape.budget} network calls at a price of "
        f"{price:g} each; the reward of a chain is -ln LPIPS - ½ ln NIQE-full, less the price of its calls. "
        f"{len(training.names)} training pictures × {len(training.trees)} noise seeds, "
        f"{len(test.names)} test pictures (a quarter clean, JPEG, noise and blur each) × {len(test.trees)} "
        f"new noise seeds; every agent learns from {args.timesteps} decisions, {args.seeds} training seeds. "
        "*Gain*: return less that of the best fixed chain, in hundredths, paired, with a 95 % bootstrap "
        "interval over photographs; then of each training seed."
    )
    said = _verdict(found)
    head = ["choice", "gain", "by training seed", "calls", "LPIPS", "NIQE-full", "SSIM", "PSNR", "residue"]
    return Report(
        "calls", f"Agents on SkipDiff-v1, {model.name}", note, [Table(head, lines), said], data,
        basis(len(test.names), len(test.trees)),
    )  # fmt: skip


def bandits_choice(net: NDArray[np.float64]) -> list[int]:
    """Return the chains for the bandit, chosen greedily: each adds the most to the best of those before."""
    flat = net.reshape(-1, net.shape[-1])
    found = [int(flat.mean(axis=0).argmax())]
    while len(found) < min(BANDIT, flat.shape[1]):
        best = flat[:, found].max(axis=1, keepdims=True)
        found.append(int(np.maximum(flat, best).mean(axis=0).argmax()))
    return sorted(set(found))


def trained_and_played(
    args: argparse.Namespace, shape: Shape, training: Part, test: Part, price: float | tuple[float, float],
    nodes: Sequence[int] | None, seed: int,
) -> NDArray[np.int64]:  # fmt: skip
    """Train an agent; return the node that it chooses for each test tree, (noise seeds, pictures)."""
    from sb3_contrib import MaskablePPO

    from skipdiff_agents.tree_env import PlanesExtractor, TreeVecEnv, played

    trees = [tree for row in training.trees for tree in row]
    count = len(shape.spent)
    values = training.worth[..., :count].reshape(len(trees), -1)
    env = TreeVecEnv(shape, trees, values - values.mean(axis=1, keepdims=True), 16, price, nodes, seed)
    agent = MaskablePPO(
        "MlpPolicy", env, n_steps=64, batch_size=256, n_epochs=4, gamma=1.0, gae_lambda=1.0, ent_coef=0.01,
        learning_rate=3e-4, seed=seed, device="cpu",
        policy_kwargs={
            "features_extractor_class": PlanesExtractor, "normalize_images": False, "net_arch": [],
        },
    )  # fmt: skip
    agent.learn(args.timesteps)
    return np.stack(
        [
            played(agent, shape, row, values, args.price, nodes)
            for row, values in zip(test.trees, test.worth[..., :count], strict=True)
        ]
    )


def gains(
    returns: NDArray[np.float64], runs: Sequence[NDArray[np.int64]], fixed: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the gains over a fixed chain, (photographs, qualities and noise seeds, training seeds).

    Args:
        returns: return of every chain, (noise seeds, pictures, nodes); the qualities of a photograph are
            neighbours.
        runs: nodes that were chosen, (noise seeds, pictures), by training seed.
        fixed: nodes of the fixed chain.
    """
    found = np.stack([_at(returns, nodes) - _at(returns, fixed) for nodes in runs], axis=-1)
    by_picture = np.moveaxis(found, 0, 1)
    return by_picture.reshape(len(by_picture) // len(KINDS), -1, len(runs))


def _verdict(found: dict[str, NDArray[np.float64]]) -> str:
    """Say whether an agent beats the best fixed chain, and how much there was to gain."""
    bounds = {name: bootstrap(values) for name, values in found.items()}
    agents = [name for name in bounds if name.startswith(("Maskable", "bandit"))]
    best = max(agents, key=lambda name: bounds[name][0])
    beats = "beats" if bounds[best][1] > 0 else "does not beat"
    optimum, other = (bounds[name][0] for name in ("optimum", "optimum under the other noise seed"))
    return (
        f"The best agent ({best}) {beats} the best fixed chain. The optimum gains {100 * optimum:.1f}; "
        f"chosen under another noise seed it still gains {100 * other:.1f}, which depends on the picture and "
        "not on the noise."
    )


def _at(values: NDArray[np.float64], nodes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Pick from ``values`` (seeds, pictures, nodes) those of the chosen nodes (seeds, pictures)."""
    return np.take_along_axis(values, nodes[..., None], axis=2)[..., 0]
