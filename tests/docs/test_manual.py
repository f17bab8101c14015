"""The manual: its Python runs, its commands are understood, and it builds without a broken link."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import COMMANDS
from benchmarks.measure import tutorials
from skipdiff_env.cli import build_parser
from skipdiff_env.diffusion import random_model, save_model, tiny_config

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)


def named(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def blocks(page: Path, language: str) -> list[str]:
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [match["text"] for match in found if match["language"] == language]


WITH_PYTHON = [page for page in PAGES if page.parent != tutorials.FOLDER and blocks(page, "python")]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=named(WITH_PYTHON))
def test_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page, in order, in one namespace, as a reader would type them."""
    pytest.importorskip("stable_baselines3")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for text in blocks(page, "python"):
        exec(compile(text, str(page), "exec"), names)


def commands(page: Path) -> list[list[str]]:
    lines = (line for text in blocks(page, "sh") for line in text.splitlines())
    return [words for line in lines if (words := shlex.split(line, comments=True))]


BESIDE = [*ROOT.glob("*.md"), *ROOT.glob("pretrained/*/README.md")]
BESIDE += ROOT.glob("benchmarks/results/*/training/README.md")
WITH_COMMANDS = [page for page in [*sorted(BESIDE), *PAGES] if commands(page)]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=named(WITH_COMMANDS))
def test_commands_of_a_page_are_understood(page: Path) -> None:
    """Options and sub-commands are those that there are; files need not be."""
    pytest.importorskip("sb3_contrib")
    from skipdiff_agents.cli import build_parser as agent_parser

    for words in commands(page):
        match words:
            case ["skipdiff", "info" | "web", *_] | ["skipdiff", _, *_]:
                build_parser().parse_args(words[1:])
            case ["skipdiff-agent", *rest]:
                agent_parser().parse_args(rest)
            case ["make", target, *_]:
                assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
            case ["python", "-m", "benchmarks", name, *_]:
                assert name in COMMANDS or name == "--help"
            case ["python" | ".venv-ray/bin/python", file, *_] if file.endswith(".py"):
                assert (ROOT / file).is_file()


def test_the_manual_builds(tmp_path: Path) -> None:
    """Strictly: a link that leads nowhere, or a name that the reference does not find, is an error."""
    pytest.importorskip("mkdocs")
    ran = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    page = (tmp_path / "site" / "environments" / "skipdiff-v0" / "index.html").read_text(encoding="utf-8")
    assert "Action Space" in page and "skip_rule" in page
    assert "<math" in (tmp_path / "site" / "method" / "index.html").read_text(encoding="utf-8")
    card = (tmp_path / "site" / "pretrained" / "natural-4x" / "index.html").read_text(encoding="utf-8")
    assert "Known failures" in card


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = random_model(tiny_config())
    return save_model(tmp_path_factory.mktemp("model") / "tiny-4x", model.network, model.config)


@pytest.mark.parametrize("script", tutorials.scripts(), ids=lambda path: path.stem)
def test_a_tutorial_runs_and_its_page_is_made_of_it(
    script: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a tiny model; what the page shows was printed by a real one."""
    pytest.importorskip("optuna")
    monkeypatch.setenv("SKIPDIFF_TUTORIAL_MODEL", str(tiny))
    monkeypatch.setenv("SKIPDIFF_TUTORIAL_BATCHES", "4")
    monkeypatch.setenv("SKIPDIFF_TUTORIAL_TIMESTEPS", "288")
    monkeypatch.setenv("SKIPDIFF_TUTORIAL_TRIALS", "3")
    made = tutorials.executed(script, tmp_path)
    assert "```text\n" in made
    page = script.with_suffix(".md").read_text(encoding="utf-8")
    assert tutorials.without_output(page) == tutorials.without_output(made)
    assert page.count("```text\n") == made.count("```text\n")
