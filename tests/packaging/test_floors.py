"""The order of the layers: a module may import from its own layer and from those below it, not from above."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FLOORS = (
    ("_version", "errors", "progress"),
    ("locks",),
    ("files",),
    ("diffusion",),
    ("policies",),
    ("chains",),
    ("metrics",),
    ("images",),
    ("training",),
    ("latent_cache", "subject"),
    ("sampler",),
    ("oracle", "plan_oracle", "planning"),
    ("envs",),
    ("upscale", "wrappers"),
    ("web",),
    ("cli",),
)
"""Lowest first; rooms on one floor do not know each other."""
HEIGHT = {room: height for height, floor in enumerate(FLOORS) for room in floor}
ROOF = len(FLOORS)
"""The package itself, ``from skipdiff_env import ...``: it shows what all rooms hold, and none may use it."""
ORDER_OF_PACKAGES = ("skipdiff_env", "skipdiff_agents", "benchmarks")


def modules() -> dict[str, Path]:
    """Every module of the three packages by its dotted name."""
    found = {}
    for folder, name in ((ROOT, "skipdiff_env"), (ROOT / "agents", "skipdiff_agents"), (ROOT, "benchmarks")):
        for path in (folder / name).rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Modules of ours that a module imports, wherever in it."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                yield whole if whole in known else source
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


KNOWN = modules()
EDGES = {
    name: sorted({found for found in imports(name, path, KNOWN) if found in KNOWN and found != name})
    for name, path in KNOWN.items()
}


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def test_every_room_has_its_floor() -> None:
    rooms = {room(name) for name in KNOWN if name.startswith("skipdiff_env.")}
    assert rooms == set(HEIGHT)


def test_no_room_reaches_up() -> None:
    up = [
        f"{name} imports {found}"
        for name, others in EDGES.items()
        for found in others
        if room(name) and name.startswith("skipdiff_env") and found.startswith("skipdiff_env")
        and room(name) != room(found) and HEIGHT.get(room(found), ROOF) >= HEIGHT[room(name)]
    ]  # fmt: skip
    assert not up


def test_packages_keep_their_order() -> None:
    rank = {package: height for height, package in enumerate(ORDER_OF_PACKAGES)}
    for name, others in EDGES.items():
        own = rank[name.split(".")[0]]
        assert all(rank[found.split(".")[0]] <= own for found in others), name


@pytest.mark.parametrize("package", ORDER_OF_PACKAGES)
def test_no_imports_go_round_in_circles(package: str) -> None:
    """Strip modules that import none of those left, until nothing is left."""
    left = {
        name: {found for found in others if found.startswith(package)}
        for name, others in EDGES.items()
        if name.split(".")[0] == package
    }
    while True:
        free = {name for name, others in left.items() if not others & set(left)}
        if not free:
            break
        left = {name: others for name, others in left.items() if name not in free}
    assert not left, f"these import each other: {sorted(left)}"
