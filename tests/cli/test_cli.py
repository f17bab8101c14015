"""The command itself: help, completion, info, errors, exit statuses."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from skipdiff_env import cli
from skipdiff_env._version import __version__
from skipdiff_env.chains import efforts
from skipdiff_env.cli import COMMANDS, build_parser, main
from skipdiff_env.diffusion import (
    NoiseSchedule,
    available_models,
    load_pretrained,
    random_model,
    save_model,
    tiny_config,
)

ROOT = Path(__file__).resolve().parents[2]


def helped(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_every_command_has_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    whole = helped(capsys)
    for name in COMMANDS:
        assert name in whole
        assert "usage: skipdiff" in helped(capsys, name)


def test_upscale_help_fits_on_a_screen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = helped(capsys, "upscale").splitlines()
    assert len(lines) <= 56 + len(available_models())
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("  skipdiff upscale ") for line in lines) == 3
    assert all(line.isascii() for line in lines)


def test_modules_keep_the_convention() -> None:
    parser = build_parser()
    (commands,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    assert list(commands.choices) == list(COMMANDS)
    for command in commands.choices.values():
        assert callable(command.get_default("run"))


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["--nonsense"], ["info", "--nonsense"], ["upscale"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert re.fullmatch(r"skipdiff: error: [^\n]+; see skipdiff[a-z ]* --help\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("error", "status", "printed"),
    [
        (ValueError("two\n  lines"), 2, "skipdiff: error: two lines\n"),
        (
            FileNotFoundError(2, "No such file", "a.png"),
            2,
            "skipdiff: error: [Errno 2] No such file: 'a.png'\n",
        ),
        (KeyboardInterrupt(), 130, "skipdiff: interrupted\n"),
    ],
)
def test_errors_become_one_line(
    error: BaseException, status: int, printed: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def failing(_: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(cli.import_module(".info", cli.__name__), "run", failing)
    assert main(["info"]) == status
    assert capsys.readouterr().err == printed


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("upscale", "train-ddpm", "keep-location", "webp"):
        assert word in script
    if shell == "bash":
        (tmp_path / "skipdiff").write_text(script)
        (tmp_path / "photo.jpg").touch()
        for begun, offered in (("--ke", "--keep-location"), ("pho", "photo.jpg")):
            ask = f"""
                source ./skipdiff
                COMP_WORDS=(skipdiff upscale {begun}) COMP_CWORD=2
                function=$(complete -p skipdiff | sed 's/.*-F \\([^ ]*\\).*/\\1/')
                $function skipdiff {begun} upscale
                echo "${{COMPREPLY[@]}}"
            """
            ran = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, cwd=tmp_path)
            assert ran.stdout.strip() == offered


def test_info(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model()
    save_model(tmp_path / "tiny-4x", model.network, model.config, "---\nnotice: a toy\n---\n")
    save_model(tmp_path / "broken-4x", model.network, model.config)
    (tmp_path / "broken-4x" / "ddpm.safetensors").write_bytes(b"rubbish")
    odd = random_model(tiny_config(schedule=NoiseSchedule.cosine(steps=13).config))
    save_model(tmp_path / "odd-4x", odd.network, odd.config)
    monkeypatch.setattr("skipdiff_env.diffusion.pretrained.pretrained_folder", lambda: tmp_path)
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert f"skipdiff {__version__}" in text
    assert re.search(r"torch +\d", text)
    assert re.search(r"cpu +\d+ threads", text)
    assert f"models in {tmp_path}" in text
    assert re.search(r"tiny-4x +4x, 0.0 M weights", text)
    assert "a toy" in text
    assert "damaged" in text
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["skipdiff"] == __version__
    assert list(facts["devices"])[-1] == "cpu"
    tiny = facts["models"]["tiny-4x"]
    assert tiny["scale"] == 4
    assert tiny["weights"] == sum(p.numel() for p in model.network.parameters())
    assert len(tiny["hash"]) == 16
    assert "damaged" in facts["models"]["broken-4x"]["error"]
    assert "13 levels have no divisor" in facts["models"]["odd-4x"]["error"]


def test_info_of_what_ships(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    for name, model in facts["models"].items():
        assert "error" not in model, name
        assert Path(model["folder"]).is_dir()
        assert list(model["efforts"]) == ["fast", "normal", "best"]
    ccsr = facts["models"]["ccsr-natural-4x"]["efforts"]
    assert ccsr["normal"] == {"chain": "ccsr:2 and the refiner of ccsr-natural-4x", "evaluations": 2}
    assert facts["models"]["addsr-natural-4x"]["efforts"]["best"] == {"chain": "addsr:4", "evaluations": 4}


def test_help_says_what_efforts_cost(capsys: pytest.CaptureFixture[str]) -> None:
    ending = helped(capsys, "upscale").split("network calls per picture, by effort: fast, normal, best\n")[1]
    costs = {name: counts for name, counts in (line.split(maxsplit=1) for line in ending.splitlines())}
    for name in available_models():
        chains = efforts(load_pretrained(name, "cpu")).values()
        assert costs[name] == ", ".join(str(c.most_evaluations(NoiseSchedule.cosine(100))) for c in chains)


def test_as_a_module_and_into_a_closed_pipe() -> None:
    command = f"{sys.executable} -m skipdiff_env.cli info | true; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert (ran.returncode, ran.stderr) == (0, "")
