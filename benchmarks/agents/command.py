"""Compares agents with fixed starts and the exact optimum, paired by image and noise seed.

    python -m benchmarks agents --images natural256_train.tar --valid val_set14_bsd20.tar \\
        --test imagenet256_test.tar

Records every schedule of all episodes once (see ``skipdiff_agents.recording``), trains every algorithm with
every seed, chooses one agent by the validation episodes, and plays all policies on the test episodes. Each
part resumes where it stopped. Writes
``benchmarks/results/agents/<model>/<input>-<metric>-<rule>-<S>-<F>.md``, ``.csv.gz`` and ``.png``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skipdiff_agents.evaluate import Evaluator, Result
from skipdiff_agents.settings import BEST, algorithms, read_settings
from skipdiff_env import SkipDiffError, SkipDiffSampler
from skipdiff_env.diffusion.folder import ABOUT_POLICY
from skipdiff_env.envs.recordings import scores
from skipdiff_env.files import write_atomically
from skipdiff_env.policies.base import CoinFlip, shipped_policy
from skipdiff_env.policies.file import load_policy

from ..measure.options import made_by
from ..measure.tables import Report, Table
from .choice import Trained, choose, same_agent, ship
from .imitation import EXACT, exact_gradient, held_out, imitation
from .plot import plot
from .study import Study, add_study_arguments, judged, open_study, say, some_starts
from .table import (
    IMITATION,
    OTHER_NOISE,
    Rows,
    by_kind,
    columns,
    intervals,
    table,
    under_other_noise,
    verdict,
)

PAPER = "recurrent_ppo"
"""The paper's agent."""
LETTER = "paper"
"""The paper's agent by the paper's own recipe, whose latents have a size of their own."""
SHIPPED = "the agent that ships"
"""The row of the agent in the model's folder, which may come from an earlier comparison."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    add_study_arguments(parser)
    add = parser.add_argument
    add(
        "--metric", default="niqe",
        help="the reward's metric, such as lpips, 'log lpips' or 'log lpips,niqe-full:0.5' [niqe]",
    )  # fmt: skip
    add("--mixed", action="store_true", help="vary the inputs: clean, JPEG, noisy and blurred in turn")
    names = [*(name for name in algorithms() if name not in ("ppo_step_cost", LETTER)), EXACT]
    add(
        "--algos",
        nargs="*",
        default=names,
        metavar="NAME[:N]",
        help=f"algorithms to train, each optionally with its own number N of decisions [{' '.join(names)}]",
    )
    add("--chain", type=int, default=0, metavar="N", help="compare with the full chain on N test images [0]")
    add(
        "--epochs",
        type=int,
        default=100,
        help=f"number of times that imitation and {EXACT} see each training episode [100]",
    )
    add(
        "--ship",
        action="store_true",
        help="copy an agent to the model's folder: the one with the fewest evaluations among those whose "
        "validation reward is within a standard error of the highest, unless the lower bound of its "
        "difference from the best start is below -1 %%",
    )


def run(args: argparse.Namespace) -> int:
    """Record the episodes, train the agents, compare them and write the page."""
    sizes = (
        [read_settings(LETTER)["observation_size"]]
        if any(a.partition(":")[0] == LETTER for a in args.algos)
        else []
    )
    study = open_study(args, args.metric, args.mixed, sizes, playable=True)
    algorithms = _algorithms(study)
    study.record()
    start = study.best_start()
    best = f"best start on validation images ({start})"
    trained = {name: _train(study, name, decisions) for name, decisions in algorithms.items()}
    taught = [imitation(study, args.epochs, seed) for seed in range(args.seeds) if study.recorded]
    chosen = choose(study, trained, start) if trained else None
    if args.ship and chosen:
        ship(study, chosen)
    test = study.evaluator("test")
    rows = _fixed(study, start, best)
    if args.test_seeds > 1:
        rows[OTHER_NOISE] = [under_other_noise(rows, len(test.pairs) // args.test_seeds)]
    if taught:
        rows[IMITATION] = [test(policy) for policy in taught]
    for name, runs in trained.items():
        rows[name] = [test(load_policy(run.folder / BEST)) for run in runs]
    ships = _shipped(study)
    if chosen:
        rows[chosen.row] = [rows[chosen.algorithm][chosen.seed]]
        if ships and same_agent(chosen.file, ships):
            rows[chosen.row], ships = [test(load_policy(ships))], None
    if ships:
        rows[SHIPPED] = [test(load_policy(ships))]
    optima = np.array([o.reward for o in test.optima()] if study.recorded else [np.nan] * len(test.pairs))
    images = study.photographs("test")
    said = "No agent was trained."
    if chosen:
        said = verdict(rows, best, images, chosen.row, chosen.ahead, PAPER, study.scale)
    blocks: list[str | Table] = [
        said,
        table(rows, best, optima, images, trained, study.scale),
        "Means and 95 % intervals of the other columns:",
        intervals(rows, optima, images),
    ]
    agents = [*trained, chosen.row] if chosen else []
    agents += [SHIPPED] if ships else []
    if args.mixed:
        shown = [name for name in ("optimum", OTHER_NOISE, IMITATION, *agents) if name in rows]
        blocks += ["For each kind of input:", by_kind(rows, best, images, shown, study.scale)]
    if args.chain:
        blocks += _chain(study, rows, best, agents)
    blocks.append(f"![Reward against evaluations, and differences to the best start]({study.name}.png)")
    report = Report(
        study.name,
        f"Agents on {study.model.name}: {study.name}",
        f"{study.describe()} Reward from {args.metric}. Means over {args.seeds} training seeds; 95 % "
        f"bootstrap intervals over training seeds and images. {made_by('agents', args, add_arguments)}",
        blocks,
        _data(rows),
        packed=True,
    )
    report.write(study.folder)
    plot(
        study.folder / f"{study.name}.png",
        rows,
        best,
        optima,
        images,
        [n for n in (IMITATION, *agents) if n in rows],
    )
    say("\n" + report.text)
    return 0


def _algorithms(study: Study) -> dict[str, str]:
    """Return the number of decisions for each algorithm of ``--algos``, as text; empty for the usual number.

    Raises:
        SkipDiffError: if one is not a number, or an algorithm needs recordings and there are none.
    """
    found = dict(name.partition(":")[::2] for name in study.args.algos)
    for name, decisions in found.items():
        if decisions and not decisions.isdecimal():
            raise SkipDiffError(f"--algos {name}:{decisions}: write a number of decisions after the colon")
    if not study.recorded and EXACT in found:
        raise SkipDiffError(
            f"{EXACT} learns from recordings: allow more --max-calls, or name other algorithms with --algos"
        )
    return found


def _shipped(study: Study) -> Path | None:
    """Return the agent in the model's folder, if it was trained for these steps and this reward."""
    process = study.training.process
    file = shipped_policy(process.model, process.coarse_steps, process.fine_steps, study.training.skip_rule)
    about = json.loads((file.parent / ABOUT_POLICY).read_text(encoding="utf-8")) if file else {}
    return file if about.get("metric") == study.args.metric else None


def _train(study: Study, name: str, decisions: str) -> list[Trained]:
    """Return the result of each training seed, learned from ``decisions`` decisions if that is not empty."""
    if name == EXACT:
        return [exact_gradient(study, study.args.epochs, seed) for seed in range(study.args.seeds)]
    settings = read_settings(name)
    settings["timesteps"] = int(decisions or study.args.timesteps or settings["timesteps"])
    if name != LETTER:
        settings["observation_size"] = study.args.size
    done = []
    for seed in range(study.args.seeds):
        run, progress = study.train(settings, name, seed)
        # Played again, since the price is already subtracted from the rewards in the log.
        minutes = progress.seconds / 60
        done.append(Trained(run.folder, minutes, *held_out(study, run.folder), progress.timesteps))
    return done


def _fixed(study: Study, start: int, best: str) -> Rows:
    """Play every policy that is not learned; ``best`` is the name of the row of ``start``."""
    evaluator = study.evaluator("test")
    fine = evaluator.process.fine_steps
    shown = some_starts(fine)
    played = {k: evaluator(k) for k in {*shown, start}}
    rows: Rows = {"always denoise": [played[fine]], "always skip": [played[1]]}
    rows["random"] = [evaluator(CoinFlip(seed)) for seed in range(study.args.seeds)]
    rows |= {f"start {k}": [played[k]] for k in shown}
    rows[best] = [played[start]]
    if not study.recorded:
        return rows
    outcomes = [o.best for o in evaluator.optima()]
    found = [evaluator_at(study, index, outcome.actions) for index, outcome in enumerate(outcomes)]
    return rows | {"optimum": [found]}


def evaluator_at(study: Study, index: int, actions: tuple[int, ...]) -> Result:
    """Play test episode number ``index`` with the given actions."""
    assert study.test is not None
    queue = iter(actions)
    evaluator = Evaluator(study.test, [study.test_pairs[index]], others=[m.of for m in judged()])
    return evaluator(lambda latent, memory: ([next(queue)], memory))[0]


def _chain(study: Study, rows: Rows, best: str, agents: list[str]) -> list[str | Table]:
    """Compare the full chain with the other rows on the first test images, under their first noise seed."""
    test, count = study.test, study.args.chain
    assert test is not None
    chosen = [i for i, pair in enumerate(study.test_pairs) if pair[1] == study.test_pairs[0][1]][:count]
    steps = test.process.schedule.steps
    lines = {f"full chain ({steps} steps)": [*np.mean(_chain_scores(study, chosen), axis=0), steps]}
    for name in (best, *agents):
        some = [played[i] for played in rows[name] for i in chosen]
        lines[name] = [np.mean([of(r) for r in some]) for of, _ in columns().values()]
    forms = [form for _, form in columns().values()]
    shown = [[name, *map(format, means, forms)] for name, means in lines.items()]
    text = f"On the first {len(chosen)} of the test images, one noise seed, with the full chain:"
    return [text, Table(["policy", *columns()], shown)]


def _chain_scores(study: Study, chosen: Sequence[int]) -> list[list[float]]:
    """Return the scores of the full chain on some test episodes, which are kept and computed only once."""
    test, names = study.test, [str(metric.of) for metric in judged()]
    assert test is not None
    store = study.args.runs / "chain.json"
    known = json.loads(store.read_text(encoding="utf-8")) if store.is_file() else {}
    sampler = SkipDiffSampler(test.model, test.process.schedule.steps, fine_steps=0)
    found = []
    for index in chosen:
        image, seed = study.test_pairs[index]
        key = f"{study.model.hash} {test.precision} {test.digest([study.test_pairs[index]])} {names}"
        if key not in known:
            say(f"full chain: {test.source.name(image)}")
            pair = test.pair(image, seed)
            known[key] = scores(sampler(pair.lr, seed=seed).images, pair.hr, names)[0].tolist()
            store.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(store, json.dumps(known).encode())
        found.append(known[key])
    return found


def _data(rows: Rows) -> list[list[Any]]:
    """Return the results of every episode as lines of data."""
    metrics = [metric.name for metric in judged()]
    head = ["policy", "training_seed", "image", "noise_seed", "reward", *metrics, "evaluations", "actions"]
    lines: list[list[Any]] = [head]
    for name, by_seed in rows.items():
        for seed, played in enumerate(by_seed):
            for r in played:
                numbers = [f"{value:.6g}" for value in (r.reward, *r.others)]
                actions = "".join(map(str, r.actions))
                lines.append([name, seed, r.image, r.noise_seed, *numbers, r.evaluations, actions])
    return lines
