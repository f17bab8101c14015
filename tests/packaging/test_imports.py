"""What importing costs, and what it needs."""

from __future__ import annotations

import ast
import configparser
import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "skipdiff_env"
OWN = {"skipdiff_env", "skipdiff_agents"}
DIFFUSION_NEEDS = {"torch", "numpy", "cv2", "safetensors", "yaml"}
HEAVY = ["pyiqa", "torchvision", "skimage", "scipy", "matplotlib", "pygame", "moviepy", "transformers"]
HEAVY += ["stable_baselines3", "sb3_contrib", "tensorboard"]

START = """
import json, socket, sys, time
def refuse(*args, **kwargs):
    raise OSError("this must not touch the network")
socket.socket.connect = socket.getaddrinfo = refuse
import torch
before = set(sys.modules)
start = time.process_time()
import skipdiff_env
imported = time.process_time() - start
import gymnasium
gymnasium.make("skipdiff_env:SkipDiff-v0")
made = time.process_time() - start
print(json.dumps({"imported": imported, "made": made, "new": sorted(set(sys.modules) - before)}))
"""

WITHOUT = """
import sys
missing = set(sys.argv[1:])
class Without:
    # Finds all that the finder it stands before would, but for the missing ones: they are not installed.
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in missing else self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import torch
import skipdiff_env.diffusion, skipdiff_env.training
from skipdiff_env.diffusion import NoiseKey, SkipProcess, degrade, random_model, tiny_config, to_uint8
model = random_model(tiny_config())
low = degrade(torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8), model.scale)
process = SkipProcess(model)
state = process.start(model.condition(low), [NoiseKey(image=0, seed=0)])
for _ in range(process.fine_steps - 1):
    state = process.step(state, torch.zeros(1, dtype=torch.int64))
state = process.finish(state)
assert state.level.tolist() == [0] and to_uint8(state.x0).shape == (1, 3, 32, 32)
assert not missing & set(sys.modules), missing & set(sys.modules)
"""


def third_party(path: Path, everywhere: bool) -> set[str]:
    """Names a module imports that are neither Python's nor ours; `everywhere` counts functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes: Iterator[ast.AST] = ast.walk(tree) if everywhere else iter(tree.body)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - OWN


def test_import_and_make_are_light(checkout: Any) -> None:
    """Seconds are the process's own, so that a busy machine does not count."""
    seen = json.loads(checkout.run("-c", START).splitlines()[-1])
    assert not [name for name in HEAVY if name in seen["new"]]
    assert seen["imported"] < 3 and seen["made"] < 3


def test_diffusion_works_with_its_five_libraries_alone(checkout: Any) -> None:
    missing = [*HEAVY, "gymnasium", "PIL", "tqdm", "pandas", "onnx", "diffusers", "rich"]
    checkout.run("-c", WITHOUT, *missing)


def test_diffusion_names_no_other_library() -> None:
    for path in (PACKAGE / "diffusion").rglob("*.py"):
        # What reads other libraries' models may import those libraries when it is asked to.
        lazily = {"diffusers", "huggingface_hub"} if path.parent.name == "interop" else set()
        assert third_party(path, everywhere=True) <= DIFFUSION_NEEDS | lazily, path


def test_what_is_imported_is_required() -> None:
    """Top-level imports are dependencies; what functions import, or modules that only functions import,
    may also be an extra's."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg", encoding="utf-8")

    def normal(name: str) -> str:
        return name.lower().replace("_", "-")

    def distributions(text: str) -> set[str]:
        return {normal(re.split(r"[<>=!~;\s]", line, maxsplit=1)[0]) for line in text.split("\n") if line}

    required = distributions(parser["options"]["install_requires"])
    extras = required.union(*(distributions(text) for text in parser["options.extras_require"].values()))
    provides = packages_distributions()
    for path in PACKAGE.rglob("*.py"):
        widgets = ("page.py", "choices.py", "game.py", "widgets.py")
        lazy = path.parent == PACKAGE / "web" and path.name in widgets
        for everywhere, allowed in ((False, extras if lazy else required), (True, extras)):
            for name in third_party(path, everywhere):
                owners = {normal(owner) for owner in provides.get(name, [name])}
                assert owners & allowed, (
                    f"{path.relative_to(ROOT)} imports {name}, which setup.cfg does not require"
                )
