"""What is on offer, what is refused, one job at a time, estimates."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from skipdiff_env.chains import EFFORTS, Refined
from skipdiff_env.cli import main
from skipdiff_env.diffusion import random_model, save_model
from skipdiff_env.diffusion.folder import CONFIG, REFINER, read_config, write_config, write_weights
from skipdiff_env.diffusion.model import RefinerConfig
from skipdiff_env.diffusion.refiner import RefinerNetwork
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images.formats.metadata import read_record
from skipdiff_env.images.measure import Measured
from skipdiff_env.images.photo import Header, read_photo
from skipdiff_env.oracle import Optimum, Outcome
from skipdiff_env.sampler import SkipDiffSampler
from skipdiff_env.upscale import choose_model
from skipdiff_env.web import whole
from skipdiff_env.web.offers import FEW_STEPS, FIXED, OWN, POLICIES, USUAL, WRITTEN
from skipdiff_env.web.pictures import Upload, read_upload
from skipdiff_env.web.requests import Request
from skipdiff_env.web.study import Study
from skipdiff_env.web.workshop import Workshop

AGENT = "the agent of toy-4x"


def request(workshop: Workshop, **changes: Any) -> Request:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    chosen = {"policy": FIXED, "start": 4, "coarse_steps": 10, "seed": 0} | changes
    photo = Upload("photo", b"", Header(64, 64, "png"), image, Measured(0, 0))
    model = chosen.pop("model", "toy-4x")
    return workshop.request(workshop.task(photo, model, True), model, **chosen)


def test_what_is_on_offer(workshop: Workshop, toy_folder: Path) -> None:
    assert workshop.models[0] == "toy-4x" and "natural-4x" in workshop.models
    assert workshop.notices(request(workshop)) == ["toy-4x: a toy"]
    assert workshop.policies("toy-4x", 10) == [USUAL, AGENT, *POLICIES, *FEW_STEPS["ccsr"], WRITTEN]
    assert workshop.policies("toy-4x", 5) == list(POLICIES), "it was trained for (10, 10)"
    pairs = {s: workshop.fine_steps("toy-4x", s) for s in workshop.step_pairs("toy-4x")}
    assert pairs == {4: 25, 5: 20, 10: 10, 20: 5, 25: 4, 50: 2}
    assert workshop.usual_steps("toy-4x") == 10
    assert Workshop(device="cpu").models[:2] == ["auto", "natural-4x"]
    assert Workshop(device="cpu").policies("auto", 10) == [USUAL, *FEW_STEPS["ccsr"], WRITTEN]
    own = Workshop([toy_folder], [toy_folder / "policy.safetensors"], "cpu")
    assert "agent policy.safetensors" in own.policies("natural-4x", 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coarse_steps": 7}, "7 coarse steps"),
        ({"coarse_steps": "10"}, "'10' coarse steps"),
        ({"policy": "/etc/passwd"}, "no policy '/etc/passwd'"),
        ({"start": 11}, "the start must be a whole number from 1 to 10, not 11"),
        ({"start": 0}, "from 1 to 10, not 0"),
        ({"seed": -1}, "the seed must be a whole number"),
        ({"seed": 0.5}, "the seed"),
        ({"seed": float("nan")}, "the seed"),
        ({"seed": 2**32}, "the seed"),
        ({"seed": "1"}, "the seed"),
        ({"clean": 1.5}, "clean=1.5 must be a number from 0 to 1"),
        ({"detail": "all"}, "detail='all'"),
        ({"effort": "more"}, "no effort 'more'"),
        ({"policy": "addsr:4"}, "no policy 'addsr:4'"),
        ({"policy": WRITTEN, "plan": "/etc/passwd"}, "'/etc/passwd' is not a plan"),
        ({"policy": WRITTEN, "plan": "plans.json"}, "'plans.json' is not a plan"),
        ({"policy": WRITTEN, "plan": "50>0"}, "for models of 50 levels"),
        ({"policy": WRITTEN, "plan": "9" * 350 + ">0"}, "is not a plan"),
        ({"policy": WRITTEN, "plan": "100>" * 200}, "at most 400 characters"),
        ({"policy": WRITTEN, "plan": None}, "must be a text"),
    ],
)
def test_browsers_can_send_anything(changes: dict[str, Any], message: str, workshop: Workshop) -> None:
    with pytest.raises(SkipDiffError, match=message):
        request(workshop, **changes)


def test_models_made_for_a_few_calls_come_with_their_own_chains(tmp_path: Path) -> None:
    model = random_model()
    student = save_model(tmp_path / "student-4x", model.network, replace(model.config, chain="addsr:4"))
    refiner = RefinerNetwork(model.config.unet)
    config = replace(model.config, chain="ccsr:2", refiner=RefinerConfig(model.config.unet))
    staged = save_model(tmp_path / "staged-4x", model.network, config)
    write_weights(staged / REFINER, refiner)
    workshop = Workshop([student, staged], device="cpu", side=96)
    assert workshop.chains("student-4x") == ["addsr:1", "addsr:2", "addsr:3", "addsr:4"]
    assert workshop.chains("staged-4x") == FEW_STEPS["ccsr"]
    with pytest.raises(SkipDiffError, match="AddSR's student cannot"):
        request(workshop, model="student-4x", policy="addsr:3", detail=0.5)
    for policy in ("ccsr:1", "ccsr:8"):
        chain = workshop.chain_of(request(workshop, model="staged-4x", policy=policy))
        assert isinstance(chain, Refined) and str(chain).startswith(policy)


def test_only_models_on_offer_load(workshop: Workshop, tmp_path: Path) -> None:
    for name in ("owner/name", str(tmp_path), "../toy-4x"):
        with pytest.raises(SkipDiffError, match="there is no model"):
            workshop.model(name)
    with pytest.raises(SkipDiffError, match="unknown model"):
        Workshop([tmp_path / "none"])
    with pytest.raises(SkipDiffError, match="is missing"):
        Workshop([], [tmp_path / "agent.safetensors"])
    with pytest.raises(SkipDiffError, match="side must be from 64 to 2048 pixels, not 10"):
        Workshop(side=10)


@pytest.mark.parametrize(("policy", "coarse_steps"), [(AGENT, 10), (FIXED, 5), *((p, 10) for p in POLICIES)])
def test_the_number_of_calls_is_foreseen(policy: str, coarse_steps: int, workshop: Workshop) -> None:
    chosen = request(workshop, policy=policy, coarse_steps=coarse_steps)
    ticks: list[tuple[int, int]] = []
    result = workshop.enlarge(chosen, lambda done, total: ticks.append((done, total)))
    assert [done for done, _ in ticks] == list(range(1, result.evaluations + 1))
    foreseen = workshop.calls(chosen)
    assert {total for _, total in ticks} == {foreseen}
    exact = policy in (FIXED, OWN, "always skip", "never skip")
    assert result.evaluations == foreseen if exact else result.evaluations <= foreseen


def test_time_goes_with_calls_and_pixels(workshop: Workshop) -> None:
    chosen = request(workshop)
    workshop.enlarge(chosen)
    one = workshop.seconds(chosen, 1)
    assert one > 0
    assert workshop.seconds(chosen, 50) == pytest.approx(50 * one)
    larger = replace(chosen, task=replace(chosen.task, lr=np.zeros((32, 16, 3), np.uint8)))
    assert workshop.seconds(larger, 1) == pytest.approx(2 * one)


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """A JPEG with metadata."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Somebody"
    Image.fromarray(pixels).save(tmp_path / "My photo.jpg", exif=exif)
    return tmp_path / "My photo.jpg"


def test_the_whole_photograph_is_the_commands(
    workshop: Workshop, toy_folder: Path, photograph: Path, tmp_path: Path
) -> None:
    task = workshop.task(read_upload(photograph, photograph.name), "toy-4x", False)
    asked = workshop.request(task, "toy-4x", USUAL, 7, 10, 0, clean=0.5, detail=0.5, effort="fast")
    ticks: list[tuple[int, int]] = []
    made = workshop.enlarge_whole(asked, tmp_path / "files", lambda *counted: ticks.append(counted))
    out = tmp_path / "out.jpg"
    words = [
        "--model",
        str(toy_folder),
        "--device",
        "cpu",
        "--clean",
        "0.5",
        "--detail",
        "0.5",
        "-q",
        "--effort",
        "fast",
    ]
    assert main(["upscale", str(photograph), "-o", str(out), *words]) == 0
    assert made.file.read_bytes() == out.read_bytes() and made.file.name == "my-photo-large.jpg"
    record = read_record(read_photo(made.file).metadata)
    assert record is not None and record["clean"] == 0.5
    assert made.size == (200, 160) and made.after.shape == made.before.shape == (160, 200, 3)
    work = workshop.work(asked)
    assert ticks[-1] == (made.evaluations, work.calls) and work.tiles == 1
    assert workshop.seconds_whole(asked) > 0
    assert [p.name for p in (tmp_path / "files").rglob("*") if p.is_file()] == [made.file.name]


def test_every_warning_is_shown_once(toy_folder: Path, photograph: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy_folder, tmp_path / "faulty-4x"))
    faults = {"jpeg": [90, 95], "noise": [0, 2], "blur": [0, 3]}
    write_config(folder / CONFIG, replace(read_config(folder / CONFIG), training={"degradation": faults}))
    workshop = Workshop([folder], device="cpu", side=96)
    upload = read_upload(photograph, photograph.name)
    warnings = choose_model(str(folder), lambda: upload.seen).notes
    assert len(warnings) == 2, "of its quality and its noise"
    asked = workshop.request(workshop.task(upload, "faulty-4x", False), "faulty-4x", USUAL, 7, 10, 0)
    chosen = ("looks like noise: enlarged by faulty-4x", *warnings)  # as the notes of auto
    made = workshop.enlarge_whole(replace(asked, notes=chosen, effort="fast"), tmp_path / "files")
    assert made.notes == chosen


def test_a_plan_is_the_commands(
    workshop: Workshop, toy_folder: Path, photograph: Path, tmp_path: Path
) -> None:
    text = "100>57>14|11>0 eta 0|1"
    task = workshop.task(read_upload(photograph, photograph.name), "toy-4x", False)
    asked = workshop.request(task, "toy-4x", WRITTEN, 7, 10, 0, plan=text)
    made = workshop.enlarge_whole(asked, tmp_path / "files")
    words = ["--model", str(toy_folder), "--device", "cpu", "--policy", text, "-q"]
    assert main(["upscale", str(photograph), "-o", str(tmp_path / "out.jpg"), *words]) == 0
    assert made.file.read_bytes() == (tmp_path / "out.jpg").read_bytes() and made.evaluations == 3
    other = workshop.request(task, "toy-4x", USUAL, 7, 10, 0, plan=text)
    assert other.plan is None and workshop.calls(other) > 3, "what is written counts where it is chosen"


@pytest.mark.parametrize("effort", EFFORTS)
def test_an_effort_is_the_samplers(effort: str, workshop: Workshop) -> None:
    asked = request(workshop, policy=USUAL, effort=effort)
    wanted = SkipDiffSampler(workshop.model("toy-4x"))(asked.task.lr, effort, 0)
    made = workshop.enlarge(asked)
    assert (made.picture == wanted.images[0]).all()
    assert made.evaluations == wanted.trace[0].evaluations <= workshop.calls(asked)


def test_efforts_that_are_no_more_are_not_offered(workshop: Workshop) -> None:
    assert workshop.efforts("toy-4x") == workshop.efforts("auto") == list(EFFORTS)
    assert workshop.efforts("addsr-natural-4x") == ["fast", "normal"]


def test_a_whole_photograph_is_cancelled_or_refused(
    workshop: Workshop, photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = workshop.task(read_upload(photograph, photograph.name), "toy-4x", False)
    asked = workshop.request(task, "toy-4x", USUAL, 7, 10, 0)

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise SkipDiffError("cancelled")

    with pytest.raises(SkipDiffError, match="^cancelled$"):
        workshop.enlarge_whole(asked, tmp_path / "files", stop)
    assert not list((tmp_path / "files").iterdir())
    monkeypatch.setattr(whole, "MAX_RESULT", 1000)
    with pytest.raises(SkipDiffError, match="My photo.jpg: would become 200x160, more than the 0 megapixels"):
        workshop.work(asked)


def test_closing_ends_the_job_and_refuses_others(toy_folder: Path, photograph: Path, tmp_path: Path) -> None:
    workshop = Workshop([toy_folder], device="cpu", side=96)
    task = workshop.task(read_upload(photograph, photograph.name), "toy-4x", False)
    asked = workshop.request(task, "toy-4x", USUAL, 7, 10, 0)
    begun, closed, said = threading.Event(), threading.Event(), list[str]()

    def first_call(done: int, total: int) -> None:
        begun.set()
        closed.wait(60)

    def job() -> None:
        with pytest.raises(SkipDiffError) as caught:
            workshop.enlarge_whole(asked, tmp_path / "files", first_call)
        said.append(str(caught.value))

    thread = threading.Thread(target=job)
    thread.start()
    assert begun.wait(60)
    workshop.close()
    closed.set()
    workshop.wait()
    assert not list((tmp_path / "files").iterdir())
    thread.join(60)
    assert said == ["the page is closed"]
    with pytest.raises(SkipDiffError, match="^the page is closed$"):
        workshop.enlarge(asked)


def test_auto_goes_by_the_photograph(photograph: Path) -> None:
    workshop = Workshop(device="cpu", side=96)
    upload = read_upload(photograph, photograph.name)
    for seen in (Measured(0.5, 0.5), Measured(15, 0.5)):
        task = workshop.task(replace(upload, seen=seen), "auto", False)
        expected = choose_model("auto", lambda seen=seen: seen)  # type: ignore[misc]
        asked = workshop.request(task, "auto", USUAL, 7, 10, 0)
        assert (asked.model, asked.notes) == (expected.model, expected.notes)
    with pytest.raises(SkipDiffError, match="no policy 'random' for 'auto'"):
        workshop.request(task, "auto", "random", 7, 10, 0)


def test_the_example_is_made_once(workshop: Workshop) -> None:
    asked, result = workshop.example()
    assert asked.task.name == "chelsea" and asked.policy == USUAL and result.frames
    assert workshop.example()[1] is result


def test_one_job_at_a_time(workshop: Workshop) -> None:
    running, most, lock = 0, 0, threading.Lock()
    model = workshop.model("toy-4x")
    predict = model._model.predict

    def slow(*arguments: Any) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        try:
            return predict(*arguments)
        finally:
            with lock:
                running -= 1

    model._model.predict = slow
    results: dict[int, Any] = {}

    def job(seed: int) -> None:
        results[seed] = workshop.enlarge(request(workshop, seed=seed)).picture

    try:
        threads = [threading.Thread(target=job, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        del model._model.predict
    assert most == 1
    for seed, picture in results.items():
        assert (picture == workshop.enlarge(request(workshop, seed=seed)).picture).all()


def test_a_job_that_fails_lets_the_next_one_in(workshop: Workshop) -> None:
    with pytest.raises(SkipDiffError):
        workshop.play(request(workshop), [7])
    assert workshop.play(request(workshop), []).level == 10


def test_the_full_chain_is_computed_once(workshop: Workshop) -> None:
    ticks: list[int] = []
    first = workshop.chain(request(workshop, seed=77), lambda done, total: ticks.append(total))
    assert ticks == [100] * 100
    again = workshop.chain(request(workshop, seed=77, coarse_steps=5), lambda *_: ticks.append(0))
    assert again is first and len(ticks) == 100


def test_the_comparison(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = request(workshop, seed=3)
    moves = [1, 0, 1, 0, 0, 1, 0, 0, 0]
    with pytest.raises(SkipDiffError, match="not over"):
        workshop.compare(chosen, moves[:-1], "psnr")
    you, policy, best = workshop.compare(chosen, moves, "psnr")
    assert [line.who for line in (you, policy, best)] == ["you", FIXED, "the optimum"]
    assert you.actions == tuple(moves) and you.evaluations == 9 + 6 + 1
    assert policy.actions == (1, 1, 1, 1, 1, 1, 0, 0, 0)
    # Under `reset` the result depends on the last skip alone: both skipped last at level 5.
    assert you.value == policy.value and policy.evaluations == 13
    assert best.regret == 0 and min(you.regret, policy.regret) >= 0
    assert best.reward == max(line.reward for line in (you, policy, best))
    assert you.reward + you.regret == pytest.approx(best.reward)
    with pytest.raises(SkipDiffError, match="needs pictures of at least"):
        workshop.compare(chosen, moves, "niqe")
    nothing = Optimum((Outcome((1,) * 9, float("nan"), 0.0, 10),), 64)
    monkeypatch.setattr(Study, "optimum", lambda study, metric: nothing)
    with pytest.raises(SkipDiffError, match="niqe has no value"):
        workshop.compare(chosen, moves, "niqe")
