"""``skipdiff-agent``: train, evaluate, export, oracle."""

from __future__ import annotations

import argparse
import csv
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skipdiff_env.cli.streams import ended_by_sigterm, prepare_streams
from skipdiff_env.errors import SkipDiffError, one_line, visible

from .settings import algorithms

PRECISIONS = ("float32", "bfloat16")
EPILOG = """examples:
  skipdiff-agent train --model natural-4x --images photos/ --out runs/first
  skipdiff-agent evaluate runs/first/policy.safetensors denoise skip 7 --model natural-4x --images test.tar
  skipdiff-agent export runs/first/policy.safetensors -o agent.onnx
  skipdiff-agent oracle --model natural-4x --images test.tar --noise-seeds 2"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command and its sub-commands."""
    parser = argparse.ArgumentParser(
        prog="skipdiff-agent", description="Agents that learn when to skip.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, about, add in (
        ("train", "train an agent", _train_arguments),
        ("evaluate", "compare policies on the same images and noise", _evaluate_arguments),
        ("export", "write an agent in another format, for the sampler or other runtimes", _export_arguments),
        ("oracle", "the exact best schedule of each image and noise seed", _oracle_arguments),
    ):
        command = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        add(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own) and return the exit status."""
    prepare_streams()
    args = build_parser().parse_args(argv)
    try:
        with ended_by_sigterm():
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


def _setting_arguments(parser: argparse.ArgumentParser, images: str) -> None:
    add = parser.add_argument
    add(
        "--model",
        default="natural-4x",
        metavar="NAME",
        help="name or folder of the diffusion model [natural-4x]",
    )
    add("--images", required=True, metavar="PATH", help=images)
    add("--limit", type=_positive, metavar="N", help="take the first N images alone")
    add("--mixed", action="store_true", help="degrade inputs: clean, JPEG, noise and blur in turn")
    add("--precision", choices=PRECISIONS, help="of the network [bfloat16 on CUDA, else float32]")
    add("--noise-seeds", type=_positive, default=3, metavar="N", help="noise seeds an image [3]")
    add("--metric", default="niqe", metavar="NAME", help="niqe, lpips, psnr, ... [niqe]")
    add("--coarse-steps", type=_positive, default=10, metavar="S", help="coarse steps [10]")
    add("--fine-steps", type=_positive, metavar="F", help="fine levels [T/S]")
    add("--skip-rule", choices=("reset", "hold"), default="reset", help="what a skip does [reset]")
    add("--image-size", type=_positive, metavar="PX", help="side of the crops [the model's own]")
    add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, ... [auto]")
    add(
        "--cache-mb",
        type=_positive,
        default=2048,
        metavar="MB",
        help="memory for latents already computed, or recorded [2048]",
    )
    add("--cache-file", metavar="FILE", help="keep them in a file, too, for the next run (needs lmdb)")


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--algo",
        default="recurrent_ppo",
        metavar="NAME",
        help=f"{', '.join(algorithms())}, or a YAML file [recurrent_ppo, the paper's]",
    )
    _setting_arguments(parser, "training images: folder, .tar, image")
    add("--out", required=True, metavar="DIR", help="folder of the run")
    add("--held-out", metavar="PATH", help="images to evaluate on [every tenth of each kind is kept back]")
    add("--seed", type=int, default=0, metavar="N", help="of weights, actions and order [0]")
    add("--timesteps", type=_positive, metavar="N", help="decisions to learn from [the algorithm's own]")
    add("--every", type=_positive, metavar="N", help="decisions between evaluations [a twentieth]")
    add("--resume", action="store_true", help="continue the run in --out (a replay buffer is filled anew)")
    add("--record", metavar="DIR", help="play every schedule of the episodes once, then learn by lookups")
    parser.set_defaults(run=_train)


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "policies",
        nargs="+",
        metavar="POLICY",
        help="a policy file, a start level, 'denoise', 'skip', 'random' or 'agent' (the model's own)",
    )
    _setting_arguments(parser, "images to evaluate on")
    add("--first-seed", type=int, metavar="N", help="first noise seed [1000000, which training never uses]")
    add("--also", action="append", default=[], metavar="METRIC", help="a further metric; may be given again")
    add("--best-start-on", metavar="PATH", help="add the fixed start that is best on these (training) images")
    add("--optimum", action="store_true", help="add regret and the share of the gap that is closed")
    add("-o", "--out", metavar="FILE", help="CSV of all episodes; continues one that is there")
    parser.set_defaults(run=_evaluate)


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write an agent as a policy file for the sampler. policy.safetensors of a run is its best agent, "
        "the one that was evaluated; checkpoint.zip is the last one. Other .zip files of Stable-Baselines3 "
        "will do if they were trained with SPNPolicy, or with ClockExtractor and net_arch=[]. "
        "A .zip holds pickled objects, "
        "which could run any code: here only its tensors are read, but do not load() one from a stranger."
    )
    add = parser.add_argument
    add("agent", metavar="AGENT", help="folder of a run (its best agent), policy.safetensors, or a .zip")
    add("--format", choices=("safetensors", "onnx", "torch-export"), help="[by the suffix of FILE]")
    add("-o", "--out", required=True, metavar="FILE", help=".safetensors, .onnx or .pt2")
    parser.set_defaults(run=_export)


def _oracle_arguments(parser: argparse.ArgumentParser) -> None:
    _setting_arguments(parser, "images")
    parser.add_argument("-o", "--out", metavar="FILE", help="CSV of every outcome")
    parser.set_defaults(run=_oracle)


def _setting(args: argparse.Namespace) -> Any:
    import torch

    from skipdiff_env.diffusion import load_pretrained
    from skipdiff_env.latent_cache import LatentCache

    from .evaluate import Setting

    dtype = getattr(torch, args.precision) if args.precision else None
    return Setting(
        load_pretrained(args.model, args.device, dtype), _source(args, args.images), args.metric,
        args.coarse_steps,
        args.fine_steps, args.skip_rule, args.image_size,
        LatentCache(args.cache_mb * 2**20, file=args.cache_file),
    )  # fmt: skip


def _source(args: argparse.Namespace, path: str) -> Any:
    from skipdiff_env.images import mixed_quality, open_source

    source = open_source(path)
    source = source if args.limit is None else source.take(args.limit)
    return mixed_quality(source) if args.mixed else source


def _train(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from skipdiff_env.images.mixed import KINDS

    from .evaluate import Evaluator
    from .pairs import UNSEEN, all_pairs, every_tenth
    from .settings import read_settings
    from .train import BEST, Run

    setting = _setting(args)
    settings = read_settings(args.algo)
    settings["timesteps"] = args.timesteps or settings["timesteps"]
    if args.record:
        from .recording import RecordedSetting

        setting = RecordedSetting(
            **vars(setting), folder=Path(args.record), sizes=(settings["observation_size"],),
            max_bytes=args.cache_mb * 2**20,
        )  # fmt: skip
    images = range(len(setting.source))
    if args.held_out:
        held_out, training = replace(setting, source=_source(args, args.held_out)), list(images)
        watched = all_pairs(len(held_out.source), 1, UNSEEN)
    else:
        kept = every_tenth(len(images), len(KINDS) if args.mixed else 1)
        held_out, training = setting, sorted({*images} - {*kept})
        # With fewer than ten images there is none to spare: then new noise on the same.
        watched = all_pairs(kept or images, 1, UNSEEN)
    run = Run(
        settings, setting, all_pairs(training, args.noise_seeds), Evaluator(held_out, watched),
        Path(args.out),
        args.seed, args.device, args.every,
    )  # fmt: skip
    progress = run.train(args.resume, progress_bar=sys.stderr.isatty())
    if progress.best_reward is None:
        raise SkipDiffError("the run was stopped before its first step")
    print(
        f"{progress.timesteps} decisions, best held-out reward {progress.best_reward:.5f}: "
        f"{run.folder / BEST}"
    )
    return 128 + signal.Signals[progress.stopped_by] if progress.stopped_by else 0


def _evaluate(args: argparse.Namespace) -> int:
    from dataclasses import replace

    import numpy as np

    from .compare import compare, identity, markdown
    from .evaluate import Evaluator, best_start
    from .pairs import UNSEEN, all_pairs

    setting = _setting(args)
    first = UNSEEN if args.first_seed is None else args.first_seed
    evaluator = Evaluator(setting, all_pairs(len(setting.source), args.noise_seeds, first), others=args.also)
    policies: dict[str, Any] = {}
    if args.best_start_on:
        training = replace(setting, source=_source(args, args.best_start_on))
        chooser = Evaluator(training, all_pairs(len(training.source), args.noise_seeds))
        start = best_start(chooser.optima(), chooser.process.fine_steps)
        policies[f"best start ({start})"] = start
    for spec in args.policies:
        policies[identity(Path(spec)) if Path(spec).is_file() else spec] = evaluator.policy(spec)
    results = compare(evaluator, policies, Path(args.out) if args.out else None)
    optimum = np.array([o.reward for o in evaluator.optima()]) if args.optimum else None
    names = [evaluator.metric.name, *(m.name for m in evaluator.others)]
    print(markdown(results, next(iter(policies)), names, optimum))
    return 0


def _export(args: argparse.Namespace) -> int:
    from skipdiff_env.policies.file import save_policy

    from .export import network_from_file

    print(save_policy(args.out, network_from_file(args.agent), args.format))
    return 0


def _oracle(args: argparse.Namespace) -> int:
    from .evaluate import Evaluator
    from .pairs import all_pairs

    setting = _setting(args)
    evaluator = Evaluator(setting, all_pairs(len(setting.source), args.noise_seeds))
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
        with open(args.out, "w", newline="", encoding="utf-8") as opened:
            writer = csv.writer(opened)
            writer.writerow(["image", "noise_seed", "actions", "reward", "value", "evaluations"])
            writer.writerows(rows)
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
