"""The algorithms: each is a YAML file in ``configs/``, from which an agent is built.

An algorithm of your own is a YAML file that names its class by module, ``algorithm: my_module.MyAlgorithm``.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from skipdiff_env.errors import SkipDiffError, whole_number

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.vec_env import VecEnv

RUN, BEST, CHECKPOINT = "run.json", "policy.safetensors", "checkpoint"
"""Files in the folder of a run: its settings, its best agent, and the stem of its checkpoint files."""
CONFIGS = Path(__file__).with_name("configs")
CLASSES = {
    "EpisodicPPO": "skipdiff_agents.episodic",
    "RecurrentPPO": "sb3_contrib", "TRPO": "sb3_contrib", "QRDQN": "sb3_contrib",
    "PPO": "stable_baselines3", "A2C": "stable_baselines3", "DQN": "stable_baselines3",
}  # fmt: skip
"""The modules of the classes that can be named without a module."""
FIELDS = {
    "algorithm": "class of Stable-Baselines3 or sb3-contrib, or module.Class of your own",
    "timesteps": "number of decisions to learn from",
    "num_envs": "number of episodes played at once",
    "observation_size": "side in pixels of the latents that the agent sees",
    "episodes": "episodes per environment between updates (on-policy algorithms)",
    "minibatches": "number of minibatches per update (PPO and its variants)",
    "policy": "options of the network: memory (for agents that have one), hidden_size, norm",
    "arguments": "arguments of the class",
    "step_cost": "price per evaluation, or the range [low, high] of prices that the agent observes",
    "relative_rewards": "whether recorded rewards are relative to the mean of an episode's outcomes [true]",
}
OPTIONAL = ("episodes", "minibatches", "policy", "step_cost", "relative_rewards")
WHOLE = ("timesteps", "num_envs", "observation_size", "episodes", "minibatches")
"""The fields that are whole numbers of at least 1."""
TEXT = re.compile(r"[-+]?[\d.]+[eE][-+]?\d+")
"""Numbers such as 1e-4, which are text in YAML 1.1 and numbers everywhere else."""


def algorithms() -> list[str]:
    """List the names of the shipped algorithms."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def read_settings(name_or_path: str) -> dict[str, Any]:
    """Read the settings of a shipped algorithm, or of a YAML file of your own.

    Raises:
        SkipDiffError: if a field is wrong; the message names it and the file.
    """
    path = CONFIGS / f"{name_or_path}.yaml" if name_or_path in algorithms() else Path(name_or_path)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise SkipDiffError(
            f"unknown algorithm {name_or_path!r}: use one of {', '.join(algorithms())}, or a YAML file"
        )
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SkipDiffError(f"{path} is not YAML: {error}") from None
    if not isinstance(settings, dict):
        raise SkipDiffError(f"{path} must be a table of settings")
    for name in settings:
        if name not in FIELDS:
            raise SkipDiffError(f"{path}: unknown field {name!r}: use {', '.join(FIELDS)}")
    for name in FIELDS:
        if name not in settings and name not in OPTIONAL:
            raise SkipDiffError(f"{path}: field {name!r} ({FIELDS[name]}) is missing")
    for name in ("policy", "arguments"):
        settings[name] = {} if settings.get(name) is None else settings[name]
    try:
        _check(settings)
    except ValueError as error:
        raise SkipDiffError(f"{path}: {error}") from None
    return settings


def _check(settings: dict[str, Any]) -> None:
    """Raise a ValueError for a value that is wrong in every environment."""
    from skipdiff_env.policies.network import SPNConfig

    for name, value in _leaves(settings):
        if isinstance(value, str) and TEXT.fullmatch(value):
            raise SkipDiffError(f"{name}={value!r} is text in YAML: write numbers with a point, as in 1.0e-4")
    for name in ("policy", "arguments"):
        if not isinstance(settings[name], dict):
            raise SkipDiffError(f"{name}={settings[name]!r} must be a table of options")
    for name in WHOLE:
        if name in settings:
            whole_number(name, settings[name], 1)
    if not isinstance(settings.get("relative_rewards", True), bool):
        raise SkipDiffError(f"relative_rewards={settings['relative_rewards']!r} must be true or false")
    if "minibatches" in settings and "episodes" not in settings and "n_steps" not in settings["arguments"]:
        raise SkipDiffError(
            "minibatches needs episodes: give the number of episodes per environment between updates"
        )
    network = {name: value for name, value in settings["policy"].items() if name in SPNConfig.__annotations__}
    clock = {} if observation_kind(settings) == "latent" else {"memory": "clock", "fine_steps": 2}
    SPNConfig(**({"observation_size": settings["observation_size"]} | clock | network))
    step_cost(settings)
    if str(settings["algorithm"]) not in CLASSES:
        algorithm_class(settings["algorithm"])


def _leaves(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested tables and lists, by their dotted names."""
    for name, value in table.items():
        if isinstance(value, list):
            value = dict(enumerate(value))
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def algorithm_class(name: str) -> type[BaseAlgorithm]:
    """Return one of :data:`CLASSES`, or ``module.Class`` of a module that Python can import.

    Raises:
        SkipDiffError: if there is no such class.
    """
    if not isinstance(name, str):
        raise SkipDiffError(f"algorithm={name!r} must be the name of a class, such as PPO")
    module, _, kind = name.rpartition(".")
    try:
        return getattr(importlib.import_module(CLASSES.get(name, module)), kind)
    except (ValueError, ImportError, AttributeError) as error:
        raise SkipDiffError(
            f"unknown algorithm {name!r} ({error}): use one of {', '.join(CLASSES)}, or module.Class of a "
            "module on PYTHONPATH"
        ) from None


def observation_kind(settings: dict[str, Any]) -> str:
    """Return ``latent`` for agents with a memory, else ``dict``, which contains the step."""
    return "latent" if "memory" in settings["policy"] else "dict"


def step_cost(settings: dict[str, Any]) -> float | tuple[float, float]:
    """Return the environment's ``step_cost``.

    Raises:
        SkipDiffError: for a range of prices that the agent cannot observe.
    """
    from skipdiff_env.envs.options import checked_step_cost

    price = checked_step_cost(settings.get("step_cost", 0.0))
    if isinstance(price, tuple) and observation_kind(settings) == "latent":
        raise SkipDiffError(
            f"{settings['algorithm']} sees only latents, so it cannot be told the price: give "
            "a single step_cost"
        )
    return price


def build_agent(
    settings: dict[str, Any],
    env: VecEnv,
    decisions: int,
    seed: int = 0,
    device: str = "auto",
    **arguments: Any,
) -> BaseAlgorithm:
    """Build an untrained agent.

    Args:
        settings: see :func:`read_settings`.
        env: environment that it learns on.
        decisions: F - 1, the length of an episode.
        seed: seed of the weights and the actions.
        device: device on which it learns.
        arguments: further arguments of the class.

    Raises:
        SkipDiffError: if the settings do not fit the class.
    """
    from .policy import ClockExtractor, SPNPolicy

    arguments |= settings["arguments"]
    if "episodes" in settings:
        arguments["n_steps"] = settings["episodes"] * decisions
    if "minibatches" in settings:
        arguments["batch_size"] = math.ceil(arguments["n_steps"] * env.num_envs / settings["minibatches"])
    if observation_kind(settings) == "latent":
        policy: Any = SPNPolicy
        options = dict(settings["policy"])
    else:
        policy = "MultiInputPolicy"
        told = {"step_costs": price} if isinstance(price := step_cost(settings), tuple) else {}
        options = {
            "features_extractor_class": ClockExtractor,
            "features_extractor_kwargs": settings["policy"] | told,
            "net_arch": [], "normalize_images": False,
        }  # fmt: skip
    name = settings["algorithm"]
    if name in ("PPO", "TRPO") and policy == "MultiInputPolicy":
        # Adam in one pass over the weights; SPNPolicy sees to that itself.
        options["optimizer_kwargs"] = {"fused": True}
    kind: Any = algorithm_class(name)
    try:
        return kind(policy, env, seed=seed, device=device, policy_kwargs=options, **arguments)
    except (TypeError, AssertionError, ValueError) as error:
        raise SkipDiffError(f"{name} refuses its settings: {error}") from None
