"""``skipdiff-agent``: train, evaluate and export agents, and find the optimum."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skipdiff_env.cli.streams import ended_by_sigterm, prepare_streams
from skipdiff_env.errors import SkipDiffError, one_line, visible
from skipdiff_env.files import write_atomically

from . import arguments
from .settings import BEST, RUN

TRAINING, HELD_OUT = 24, 8
"""Minimum numbers of episodes for training and for evaluation; if there are few images, each gets more noise
seeds."""
STARTS = 20
"""Maximum F for which a run is compared with all fixed starts."""


def build_parser(run: dict[str, Any] | None = None) -> argparse.ArgumentParser:
    """Build the command's parser; ``run`` holds the defaults of ``evaluate``."""
    actions = {"train": _train, "evaluate": _evaluate, "export": _export, "oracle": _oracle}
    return arguments.build_parser(actions, run)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own) and return the exit status."""
    prepare_streams()
    args = build_parser().parse_args(argv)
    try:
        with ended_by_sigterm():
            if (run := _run_among(getattr(args, "policies", []))) is not None:
                args = build_parser(_command(run)).parse_args(argv)
            return int(args.run(args))
    except KeyboardInterrupt:
        print("skipdiff-agent: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:  # SkipDiffError is a ValueError
        print("skipdiff-agent: error:", one_line(str(error)), file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"skipdiff-agent: error: {error}: pip install 'skipdiff[agents]'", file=sys.stderr)
        return 2


def _setting(args: argparse.Namespace) -> Any:
    import torch

    from skipdiff_env.diffusion import load_pretrained
    from skipdiff_env.images import BUNDLED_IMAGE_SIZE
    from skipdiff_env.latent_cache import LatentCache

    from .evaluate import Setting

    dtype = getattr(torch, args.precision) if args.precision else None
    size = args.image_size or (BUNDLED_IMAGE_SIZE if args.images is None else None)
    return Setting(
        load_pretrained(args.model, args.device, dtype), _source(args, args.images), args.metric,
        args.coarse_steps, args.fine_steps, args.skip_rule, size,
        LatentCache(args.cache_mb * 2**20, file=args.cache_file), crop=args.crop,
    )  # fmt: skip


def _source(args: argparse.Namespace, path: str | None) -> Any:
    from skipdiff_env.images import mixed_quality, open_source

    source = open_source(path)
    source = source if args.limit is None else source.take(args.limit)
    return mixed_quality(source) if args.mixed else source


def _recorded(setting: Any, args: argparse.Namespace, size: int, folder: str | None) -> Any:
    """Return the same setting, but with recorded episodes."""
    from .recording import RecordedSetting

    return RecordedSetting(
        **vars(setting), folder=Path(folder) if folder else None, sizes=(size,),
        max_bytes=args.cache_mb * 2**20,
    )  # fmt: skip


def _recording_pays(setting: Any, episodes: int, timesteps: int) -> bool:
    """Return whether recording is within the limit and takes no more network calls than playing would."""
    from skipdiff_env.oracle import optimum_calls

    process = setting.process
    recording = optimum_calls(process)
    playing = timesteps / process.decisions * (process.coarse_steps - 1 + process.fine_steps)
    return recording <= setting.max_calls and episodes * recording <= playing


def _train(args: argparse.Namespace) -> int:
    from dataclasses import replace

    import torch

    from skipdiff_env.images.mixed import KINDS

    from .evaluate import Evaluator
    from .pairs import UNSEEN, all_pairs, enough, kept_back
    from .settings import read_settings
    from .train import Run

    setting = _setting(args)
    settings = read_settings(args.algo)
    settings["timesteps"] = args.timesteps or settings["timesteps"]
    images = range(len(setting.source))
    if args.held_out:
        held_out, kept = replace(setting, source=_source(args, args.held_out)), None
        training, watched = list(images), list(range(len(held_out.source)))
    else:
        kept = kept_back(len(images), len(KINDS) if args.mixed else 1)
        # With fewer than four images, none can be spared; the same images are used with new noise.
        held_out, training, watched = setting, sorted({*images} - {*kept}), kept or list(images)
    pairs = all_pairs(training, args.noise_seeds or max(3, enough(TRAINING, len(training))))
    held_out_pairs = all_pairs(watched, enough(HELD_OUT, len(watched)), UNSEEN)
    recorded = args.record or _recording_pays(
        setting, len(pairs) + len(held_out_pairs), settings["timesteps"]
    )
    if recorded:
        alone = held_out is setting
        setting = _recorded(setting, args, settings["observation_size"], args.record)
        held_out = setting if alone else replace(setting, source=held_out.source)
    command = _asked(args, kept) | {"observation_size": settings["observation_size"] if recorded else None}
    run = Run(
        settings, setting, pairs, Evaluator(held_out, held_out_pairs), Path(args.out), args.seed, args.device,
        args.every, command,
    )  # fmt: skip
    run.check(args.resume)
    if recorded:
        setting.recordings.prepare(pairs)
        held_out.recordings.prepare(held_out_pairs)
        torch.set_num_threads(
            1
        )  # only small networks run from here on: more threads would wait for each other
    shown = sys.stderr.isatty()
    progress = run.train(args.resume, progress_bar=shown, say=None if shown else _say)
    if progress.best_reward is None:
        raise SkipDiffError("the run was stopped before its first step: continue it with --resume")
    print(
        f"{progress.timesteps} decisions, best held-out reward {progress.best_reward:.5f}: "
        f"{run.folder / BEST}"
    )
    if progress.stopped_by:
        return 128 + signal.Signals[progress.stopped_by]
    if recorded:
        print(run.comparison())
    _say(f"next: skipdiff-agent evaluate {args.out}")
    return 0


def _asked(args: argparse.Namespace, kept: list[int] | None) -> dict[str, Any]:
    """Return the arguments with which ``evaluate`` plays the images that a run held out."""
    names = ("limit", "mixed", "precision", "metric", "coarse_steps", "fine_steps", "skip_rule", "image_size")
    asked = {name: getattr(args, name) for name in (*names, "crop", "record")}
    asked["model"] = str(Path(args.model).resolve()) if Path(args.model).exists() else args.model
    images = args.held_out or args.images
    return asked | {"images": images and str(Path(images).resolve()), "only": kept or None}


def _is_run(policy: str) -> bool:
    """Return whether a policy is given as the folder of a run."""
    return (Path(policy) / RUN).is_file()


def _run_among(policies: Sequence[str]) -> Path | None:
    """Return the first of the policies that is the folder of a run, if there is one."""
    return next((Path(policy) for policy in policies if _is_run(policy)), None)


def _command(run: Path) -> dict[str, Any]:
    """Return the arguments of ``evaluate`` that a run stored."""
    return json.loads((run / RUN).read_text(encoding="utf-8")).get("command", {})


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _evaluate(args: argparse.Namespace) -> int:
    from dataclasses import replace

    import numpy as np

    from skipdiff_env.envs import recordings
    from skipdiff_env.training.recipe import differences

    from .compare import compare, markdown
    from .evaluate import Evaluator, best_start
    from .pairs import FRESH, UNSEEN, all_pairs, enough

    setting, run = _setting(args), _run_among(args.policies)
    specs = [str(Path(spec) / BEST) if _is_run(spec) else spec for spec in args.policies]
    for other in filter(_is_run, args.policies):
        names = differences(_command(run), _command(Path(other)))  # type: ignore[arg-type]
        if names := [name for name in names if name not in ("observation_size", "record")]:
            _say(f"note: {other} is played like {run}, but was trained with another {' and '.join(names)}")
    kept = args.only if run and args.images == _command(run)["images"] else None
    images = kept or range(len(setting.source))
    seeds = args.noise_seeds or (3 if run is None else enough(HELD_OUT, len(images)))
    first = args.first_seed if args.first_seed is not None else UNSEEN if run is None else FRESH
    pairs = all_pairs(images, seeds, first)
    alone = run is not None and len(specs) == 1
    known = (*recordings.METRICS, setting.metric)
    # Metrics that are not recorded need episodes that are played.
    if alone and args.observation_size and all(metric in known for metric in args.also):
        setting = _recorded(setting, args, args.observation_size, args.record)
        setting.recordings.prepare(pairs)
    evaluator = Evaluator(setting, pairs, others=args.also)
    policies: dict[str, Any] = {}
    if args.best_start_on:
        training = replace(setting, source=_source(args, args.best_start_on))
        chooser = Evaluator(training, all_pairs(len(training.source), seeds))
        start = best_start(chooser.optima(), chooser.process.fine_steps)
        policies[f"best start ({start})"] = start
    for spec in specs:
        policies |= _named_policy(spec, evaluator, args.step_cost)
    if args.step_cost is not None and not any(map(_is_told_prices, policies.values())):
        raise SkipDiffError("--step-cost needs an agent that was trained with prices: leave it out")
    fine = evaluator.process.fine_steps
    if alone:
        policies |= {f"start {start}": start for start in range(1, fine + 1) if fine <= STARTS}
    results = compare(evaluator, policies, Path(args.out) if args.out else None)
    optimal = args.optimum or (alone and evaluator.can_find_optima())
    optimum = np.array([o.reward for o in evaluator.optima()]) if optimal else None
    names = [evaluator.metric.name, *(m.name for m in evaluator.others)]
    print(markdown(results, next(iter(policies)), names, optimum))
    if run is not None:
        _say(f"next: skipdiff-agent export {run} -o agent.onnx")
    return 0


def _is_told_prices(policy: Any) -> bool:
    return getattr(getattr(policy, "config", None), "step_costs", None) is not None


def _named_policy(spec: str, evaluator: Any, price: float | None) -> dict[str, Any]:
    """Return a policy by its name in the table. An agent that was trained with prices is told ``price`` or,
    without one, the middle of its range on a logarithmic scale; its name ends in the price."""
    from skipdiff_env.policies.file import POLICY_FILES, load_policy

    from .compare import identity

    file = Path(spec)
    if not (file.is_file() and file.suffix in POLICY_FILES):
        return {spec: evaluator.policy(spec)}
    policy, name = load_policy(file), identity(file)
    if (prices := policy.config.step_costs) is not None:
        price = math.sqrt(prices[0] * prices[1]) if price is None else price
        policy, name = load_policy(file, price), f"{name} at {price:.6g}"
    return {name: evaluator.policy(policy)}


def _export(args: argparse.Namespace) -> int:
    from skipdiff_env.policies.file import save_policy

    from .export import network_from_file, purpose_of

    network = network_from_file(args.agent)
    file = save_policy(args.out, network, args.format, purpose=purpose_of(args.agent))
    print(file)
    asked = _command(run) if (run := _run_among([args.agent])) else {}
    # The model is named, because upscale chooses another model for JPEGs.
    more = f" --model {asked['model']}" if "model" in asked else ""
    if (steps := asked.get("coarse_steps", arguments.COARSE_STEPS)) != arguments.COARSE_STEPS:
        more += f" --coarse-steps {steps}"
    if asked.get("fine_steps") or asked.get("skip_rule", "reset") != "reset":
        # The command has neither of these options.
        _say("next: SkipDiffSampler(model, fine_steps=..., skip_rule=...)(lr, policy=...) in Python")
    else:
        _say(f"next: skipdiff upscale photo.jpg -o large.png --policy {file}{more}")
    return 0


def _oracle(args: argparse.Namespace) -> int:
    from .evaluate import Evaluator
    from .pairs import all_pairs

    setting = _setting(args)
    evaluator = Evaluator(setting, all_pairs(len(setting.source), args.noise_seeds or 3))
    optima = evaluator.optima()
    rows = []
    for (image, seed), optimum in zip(evaluator.pairs, optima, strict=True):
        name = setting.source.name(image)
        best = optimum.best
        shown = "".join(map(str, best.actions))
        figures = f"reward {best.reward:.6f}\t{best.evaluations} evaluations"
        print(f"{visible(name)}\tnoise seed {seed}\t{shown}\t{figures}")
        rows += [
            [name, seed, "".join(map(str, o.actions)), o.reward, o.value, o.evaluations]
            for o in optimum.outcomes
        ]
    if args.out:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(["image", "noise_seed", "actions", "reward", "value", "evaluations"])
        writer.writerows(rows)
        write_atomically(Path(args.out), text.getvalue().encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
