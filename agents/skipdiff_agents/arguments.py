"""The arguments of ``skipdiff-agent``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from .settings import algorithms

PRECISIONS = ("float32", "bfloat16")
EPILOG = """from training to a picture:
  skipdiff-agent train
  skipdiff-agent evaluate runs/agent
  skipdiff-agent export runs/agent -o agent.onnx
  skipdiff upscale photo.jpg -o large.png --policy agent.onnx --model natural-4x

with pictures of your own:
  skipdiff-agent train --images photos/ --held-out others/ --out runs/mine
  skipdiff-agent evaluate runs/mine/policy.safetensors denoise skip 7 --images test.tar
  skipdiff-agent oracle --images test.tar --noise-seeds 2"""
MODEL, COARSE_STEPS, OUT = "natural-4x", 10, "runs/agent"


def build_parser(
    actions: Mapping[str, Callable[[argparse.Namespace], int]], run: Mapping[str, Any] | None = None
) -> argparse.ArgumentParser:
    """Build the parser of the command and its sub-commands.

    Args:
        actions: functions that carry out the sub-commands, by name.
        run: defaults of ``evaluate`` that a run stored.
    """
    parser = argparse.ArgumentParser(
        prog="skipdiff-agent", description="Train, evaluate and export agents that learn when to skip.",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, about, add in (
        ("train", "train an agent", _train_arguments),
        ("evaluate", "compare policies on the same images and noise", _evaluate_arguments),
        ("export", "write an agent as a file for the sampler or another runtime", _export_arguments),
        ("oracle", "find the exact best schedule of each image and noise seed", _oracle_arguments),
    ):
        command = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        add(command)
        command.set_defaults(run=actions[name])
        if name == "evaluate":
            command.set_defaults(**(run or {}))
    return parser


def _setting_arguments(parser: argparse.ArgumentParser, images: str) -> None:
    add = parser.add_argument
    add("--model", default=MODEL, metavar="NAME", help=f"name or folder of the diffusion model [{MODEL}]")
    add("--images", metavar="PATH", help=f"{images} [the bundled photographs]")
    add("--limit", type=_positive, metavar="N", help="use only the first N images [all]")
    add("--mixed", action="store_true", help="vary the inputs: clean, JPEG, noisy and blurred in turn")
    add("--precision", choices=PRECISIONS, help="precision of the network [bfloat16 on CUDA, else float32]")
    add(
        "--noise-seeds",
        type=_positive,
        metavar="N",
        help="noise seeds per image, each with its own random crop [3, or more for few images]",
    )
    add(
        "--metric",
        default="niqe",
        metavar="NAME",
        help="metric that is rewarded: niqe, lpips, psnr, ... [niqe]",
    )
    add(
        "--coarse-steps",
        type=_positive,
        default=COARSE_STEPS,
        metavar="S",
        help=f"number of coarse steps, a divisor of T [{COARSE_STEPS}]",
    )
    add("--fine-steps", type=_positive, metavar="F", help="number of fine levels [T/S]")
    add(
        "--skip-rule",
        choices=("reset", "hold"),
        default="reset",
        help="what a skip does to the latent [reset]",
    )
    add(
        "--image-size",
        type=_positive,
        metavar="PX",
        help="side of the crops in pixels [that of the environment]",
    )
    add("--crop", choices=("random", "center"), default="random", help="where images are cropped [random]")
    add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, ... [auto]")
    add(
        "--cache-mb",
        type=_positive,
        default=2048,
        metavar="MB",
        help="memory for computed or recorded latents, in MB [2048]",
    )
    add(
        "--cache-file",
        metavar="FILE",
        help="also keep computed latents in this file, for the next run (needs lmdb)",
    )


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--algo",
        default="recurrent_ppo",
        metavar="NAME",
        help=f"{', '.join(algorithms())} or a YAML file [recurrent_ppo, the paper's agent with our recipe]",
    )
    _setting_arguments(parser, "training images: a folder, .tar or image file")
    add("--out", default=OUT, metavar="DIR", help=f"folder of the run [{OUT}]")
    add(
        "--held-out",
        metavar="PATH",
        help="images to evaluate on [every tenth training image, or every third if there are only four "
        "to nine; with --mixed, of each kind; the agent does not learn from these]",
    )
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the weights, the actions and the order of the episodes [0]",
    )
    add(
        "--timesteps",
        type=_positive,
        metavar="N",
        help="number of decisions to learn from [the algorithm's own]",
    )
    add(
        "--every",
        type=_positive,
        metavar="N",
        help="number of decisions between evaluations [a twentieth of all]",
    )
    add("--resume", action="store_true", help="continue the run in --out (a replay buffer starts empty)")
    add(
        "--record",
        metavar="DIR",
        help="play every schedule of the episodes once, keep the results in this folder, and learn from them "
        "[done in the user's cache if it takes no more network calls than playing as the agent learns]",
    )


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "policies",
        nargs="+",
        metavar="POLICY",
        help="the folder of a run, a policy file, a start level, 'denoise', 'skip', 'random' or 'agent' (the "
        "model's own). A run is evaluated with the model, steps and rule of its training, on the images that "
        "it held out; if it is the only policy, all fixed starts are evaluated too. Of several runs, the "
        "first decides these settings",
    )
    _setting_arguments(parser, "images to evaluate on")
    add("--first-seed", type=int, metavar="N", help="first noise seed [one that training never uses]")
    add(
        "--step-cost",
        type=float,
        metavar="C",
        help="price per evaluation, for agents that were trained with prices; it is not subtracted from the "
        "rewards in the table [the middle of the prices that an agent was trained with]",
    )
    add("--also", action="append", default=[], metavar="METRIC", help="a further metric; may be repeated")
    add(
        "--best-start-on",
        metavar="PATH",
        help="add the fixed start that is best on these images, usually the training images",
    )
    add(
        "--optimum",
        action="store_true",
        help="add the regret, and the share of the gap to the optimum that a policy closes",
    )
    add("-o", "--out", metavar="FILE", help="CSV file of all episodes; an existing one is continued")
    parser.set_defaults(only=None, observation_size=None)


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write an agent as a policy file for the sampler. In the folder of a run, policy.safetensors is the "
        "agent that did best on the held-out images; checkpoint.zip is the last one. Other .zip files of "
        "Stable-Baselines3 are accepted if they were trained with SPNPolicy, or with ClockExtractor and "
        "net_arch=[]. A .zip file holds pickled objects, which can run any code. This command reads only its "
        "tensors, but never load() such a file from a stranger."
    )
    add = parser.add_argument
    add("agent", metavar="AGENT", help="folder of a run (its best agent), policy.safetensors or a .zip file")
    add("--format", choices=("safetensors", "onnx", "torch-export"), help="format [by the suffix of FILE]")
    add("-o", "--out", required=True, metavar="FILE", help="file to write: .safetensors, .onnx or .pt2")


def _oracle_arguments(parser: argparse.ArgumentParser) -> None:
    _setting_arguments(parser, "images: a folder, .tar or image file")
    parser.add_argument("-o", "--out", metavar="FILE", help="CSV file of every outcome")


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number
