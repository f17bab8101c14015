"""The page in headless Chromium (Debian: chromium, chromium-driver): `make test-browser`.

The server is the command itself, on the tiny model. Without Chromium these tests fail: whoever asks for
them by their marker wants to know.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from skipdiff_env.diffusion import load_pretrained
from skipdiff_env.images import read_image, write_image
from skipdiff_env.sampler import SkipDiffSampler
from skipdiff_env.web.pictures import make_task, read_upload
from tests.web.visitor import Visitor, found

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def address(toy_folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "skipdiff_env.cli", "web", "--model", str(toy_folder)]
    command += ["--port", "0", "--side", "192", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[4]
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def browser(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    """A browser that, as its end shows, asked nobody but the server for anything."""
    from selenium import webdriver

    downloads = tmp_path_factory.mktemp("downloads")
    options = webdriver.ChromeOptions()
    options.binary_location = found("chromium", "chromium-browser", "google-chrome")
    # Chromium refuses its sandbox to root, and CI often is root in a container with a small /dev/shm.
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    service = webdriver.ChromeService(found("chromedriver"))
    with webdriver.Chrome(options, service) as driver:
        visitor = Visitor(driver, address, downloads)
        yield visitor
        urls = visitor.asked()
        own = [url for url in urls if url.startswith(address)]
        assert own and [u for u in urls if u not in own and not u.startswith(("data:", "blob:"))] == []


@pytest.fixture
def page(browser: Visitor) -> Visitor:
    browser.open()
    return browser


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photograph of 192x192 pixels of smooth noise, which is shown as it is."""
    coarse = np.random.default_rng(4).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    write_image(tmp_path / "My photo.png", coarse.repeat(8, 0).repeat(8, 1))
    return tmp_path / "My photo.png"


def test_it_opens_with_a_finished_example(page: Visitor) -> None:
    rows = page.wait(
        lambda: [r.text.split() for r in page.all("#numbers tr")] if len(page.all("#numbers tr")) == 3 else 0
    )
    assert [row[0] for row in rows] == ["PSNR", "bicubic", "SkipDiff"]
    assert len(page.all("#strip figure")) == 19 and page.all("#slider img")
    page.says("#status", "An example")
    assert page.text("#run") == "Enlarge" and not page.all("#cancel")[0].is_enabled()


def test_an_upload_is_enlarged_whole_as_the_command_does_it(
    page: Visitor, photo: Path, toy_folder: Path, tmp_path: Path
) -> None:
    page.upload(photo)
    page.says("#note", "192x192 pixels become 768x768; toy-4x: a toy")
    page.says("#estimate", "network calls on 4 tiles")
    page.click("#run")
    page.says("#status", "768x768 pixels")
    page.finished()
    page.click("#download")
    (file,) = page.wait(lambda: [p for p in page.downloads.iterdir() if p.suffix == ".png"])
    assert file.name == "my-photo-large.png"
    command = [sys.executable, "-m", "skipdiff_env.cli", "upscale", str(photo), "-o", str(tmp_path / "x.png")]
    command += ["--model", str(toy_folder), "--device", "cpu", "-q"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    assert file.read_bytes() == (tmp_path / "x.png").read_bytes()
    file.unlink()


def test_a_job_can_be_cancelled(page: Visitor, tmp_path: Path) -> None:
    write_image(tmp_path / "large.png", np.zeros((900, 900, 3), np.uint8))
    page.upload(tmp_path / "large.png")
    page.says("#note", "900x900 pixels become 3600x3600")
    page.click("#run")
    page.wait(lambda: page.all("#cancel")[0].is_enabled())
    page.click("#cancel")
    page.says("#status", "cancelled")
    page.finished()
    page.click("#photographs button[aria-label^='Thumbnail 1 of']")
    page.says("#note", "512x512 pixels; shrunk; original 192x192")
    page.click("#run")  # the next job is let in
    page.wait(lambda: len(page.all("#strip figure")) == 19 and "An example" not in page.text("#status"))
    page.finished()


def test_shrink_run_slider_download(page: Visitor, photo: Path, toy_folder: Path) -> None:
    page.upload(photo)
    page.says("#note", "192x192 pixels become 768x768")
    page.click("#reference input[value='true']")
    page.says("#note", "192x192 pixels; original 192x192; input 48x48, result 192x192; toy-4x: a toy")
    page.open_advanced()
    page.click("#chain input")
    assert "19 network calls" in page.says("#estimate", "The full chain: 100 calls")
    page.click("#run")
    covered: list[bool] = []

    def rows() -> list[list[str]]:
        covered.append(page.run("document.querySelector('#slider .wrap.generating, #slider .progress-text')"))
        return [row.text.split() for row in page.all("#numbers tr")]

    found = page.wait(lambda: rows() if len(rows()) == 4 else 0)
    assert not any(covered), "what is finished was covered"
    assert [row[0] for row in found[1:]] == ["bicubic", "full", "SkipDiff"]
    assert (found[2][-2], found[3][-2]) == ("100", "19")
    for cell in (*found[2][2:6], *found[3][1:5]):
        assert float(cell) > 0
    page.finished()

    levels = [figure.text.split() for figure in page.all("#strip figure")]
    assert [words[1] for words in levels] == [
        str(t) for t in (90, 80, 70, 60, 50, 40, 30, 20, *range(10, -1, -1))
    ]
    for words in levels[8:17]:
        assert words[2] == ("skip" if float(words[-1]) > 0.5 else "denoise") and words[-2] == "p(skip)"

    def revealed() -> str:
        return page.all("#slider img")[1].get_attribute("style").split("clip-path")[1].split(";")[0]

    from selenium.webdriver import ActionChains

    before = page.wait(revealed)
    handle = page.all("#slider [data-testid=slider] .icon-wrap")[0]
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", handle)
    ActionChains(page.driver).drag_and_drop_by_offset(handle, 150, 0).perform()
    page.wait(lambda: revealed() != before)

    page.click("#download")
    (file,) = page.wait(lambda: [p for p in page.downloads.iterdir() if p.suffix == ".png"])
    assert file.name == "my-photo-skipdiff-toy-4x-seed-0.png"
    sampler = SkipDiffSampler(load_pretrained(toy_folder, "cpu"), 10)
    task = make_task(read_upload(photo, photo.name), scale=4, reference=True, side=192)
    expected = sampler(task.lr, toy_folder / "policy.safetensors", 0).images[0]
    assert np.abs(read_image(file).astype(int) - expected).max() <= 1


def test_clean_and_detail(page: Visitor) -> None:
    page.wait(lambda: len(page.all("#numbers tr")) == 3)
    before = page.text("#numbers")
    for name, calls in (("clean", 19), ("detail", 20)):
        box = page.all(f"#{name} input[type=number]")[0]
        page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
        box.click()
        for keys in ("\ue009a\ue009", "\ue003", *"0.5", "\ue007"):  # first select all and delete
            box.send_keys(keys)
            time.sleep(0.3)  # so that every state of the box is sent
        page.says("#estimate", f"{calls} network calls")
    page.click("#detail button")  # back to 1
    page.says("#estimate", "19 network calls")
    page.click("#run")
    page.wait(lambda: page.text("#numbers") not in ("", before))
    page.finished()


def test_efforts(page: Visitor) -> None:
    chosen = page.wait(lambda: page.all("#effort input:checked"))[0]
    assert chosen.get_attribute("value") == "normal"
    for word, calls in (("fast", 10), ("best", 100)):
        page.click(f"#effort input[value={word}]")
        page.says("#estimate", f"{calls} network calls")
    page.click("#effort input[value=fast]")
    page.says("#estimate", "10 network calls")
    page.click("#run")
    page.wait(lambda: len(page.all("#strip figure")) == 10)
    page.finished()


@pytest.mark.parametrize(("width", "height"), [(1400, 1000), (390, 844)])
def test_a_plan_of_ones_own_and_its_strip(width: int, height: int, page: Visitor, tmp_path: Path) -> None:
    page.open(width, height)
    page.wait(lambda: len(page.all("#numbers tr")) == 3)
    page.open_advanced()
    page.choose("Policy", "a plan of your own")
    page.says("#estimate", "6 network calls")
    assert not page.all("#effort input")[0].is_enabled() and "policy under Advanced" in page.text("#effort")
    box = page.wait(lambda: page.all("#plan input, #plan textarea"))[0]
    box.send_keys("\ue009a\ue009", "100>57|")
    page.says("#note [role=alert]", "is not a plan")
    box.send_keys("40>14|11>2>0 eta 0.5|0.5|1")
    page.says("#estimate", "4 network calls")
    page.click("#run")
    page.wait(lambda: len(page.all("#strip figure")) == 4)
    page.finished()
    assert [" ".join(figure.text.split()) for figure in page.all("#strip figure")] == [
        "100 → 57 told 100 η 0.5", "57 → 14 told 40 η 0.5", "14 → 2 told 11 η 1", "2 → 0 told 2 result",
    ]  # fmt: skip
    skips = [len(figure.find_elements("css selector", "b.skip")) for figure in page.all("#strip figure")]
    assert skips == [0, 1, 1, 0] and page.all("#strip .legend")[0].is_displayed()
    root = "document.documentElement"
    page.wait(lambda: page.run(f"{root}.scrollWidth - {root}.clientWidth") == 0)
    page.driver.execute_script("document.querySelector('#strip').scrollIntoView({block: 'center'})")
    page.driver.save_screenshot(str(tmp_path / f"{width}.png"))


def test_bad_files_are_messages(page: Visitor, tmp_path: Path) -> None:
    (tmp_path / "rubbish.png").write_bytes(b"rubbish" * 100)
    page.upload(tmp_path / "rubbish.png")
    page.says("#note [role=alert]", "rubbish.png: is not a readable image")
    page.click("#run")
    page.says(".toast-wrap", "choose a photograph first")
    page.forget_upload()
    write_image(tmp_path / "small.png", np.zeros((10, 30, 3), np.uint8))
    page.upload(tmp_path / "small.png")
    page.says(
        "#note [role=alert]",
        "small.png: is 30x10 pixels; with this model's scale of 4 both sides need at least 16",
    )
    page.forget_upload()
    (tmp_path / "large.png").write_bytes(bytes(21 * 2**20))
    page.upload(tmp_path / "large.png")
    page.says(".toast-wrap", "exceed the maximum allowed size")


def test_a_game_against_the_policy_and_the_optimum(page: Visitor) -> None:
    page.wait(lambda: page.all("#photographs button"))
    page.click("#photographs button[aria-label^='Thumbnail 1 of']")
    page.says("#note", "512x512 pixels; shrunk; original 192x192")
    next(tab for tab in page.all("button[role=tab]") if tab.text == "Decide yourself").click()
    page.click("#new")
    page.says("#standing", "Level 10 of 10, 9 network calls so far.")
    calls = 9
    for level, move in zip(range(9, 1, -1), ("denoise", "skip") * 4, strict=True):
        page.click(f"#{move}")
        calls += move == "denoise"
        page.says("#standing", f"Level {level} of 10, {calls} network calls")
    page.click("#back")
    page.says("#standing", "Level 3 of 10, 13 network calls")
    page.click("#denoise")
    page.says("#standing", f"Level 2 of 10, {calls + 1} network calls")
    page.click("#denoise")
    page.says("#standing", "All decisions are taken, after 16 network calls.")
    assert not page.all("#denoise")[0].is_enabled()
    page.click("#compare")
    rows = page.wait(
        lambda: [row.text for row in page.all("#ranking tr")] if len(page.all("#ranking tr")) == 4 else 0
    )
    assert [row.split()[0] for row in rows[1:]] == ["you", "the", "the"]
    moves = [i.get_attribute("class") for i in page.all("#ranking tr:nth-child(2) i")]
    assert moves == ["denoise", "skip"] * 3 + ["denoise"] * 3
    regrets = [float(row.split()[-2]) for row in rows[1:]]
    assert regrets[2] == 0 and min(regrets) >= 0


def test_choices_change_with_each_other(page: Visitor) -> None:
    page.open_advanced()
    page.choose("Step pair (S, F)", "(5, 20)")
    page.says("#estimate", "18 network calls")  # no agent was trained for it: 4 + 14, 0.7 F
    page.choose("Policy", "always skip")
    page.says("#estimate", "5 network calls")
    page.choose("Policy", "fixed start")
    page.says("#estimate", "18 network calls")
    assert page.all("#start input[type=range]")[0].get_attribute("max") == "20"
    assert page.text("[data-testid=toast-body]") == ""


@pytest.mark.parametrize(("width", "height"), [(1400, 1000), (390, 844)])
def test_it_fits_the_screen(width: int, height: int, page: Visitor, tmp_path: Path) -> None:
    page.open(width, height)
    page.wait(lambda: len(page.all("#numbers tr")) == 3)
    root = "document.documentElement"
    page.wait(lambda: page.run(f"{root}.scrollWidth - {root}.clientWidth") == 0)
    page.driver.save_screenshot(str(tmp_path / f"{width}.png"))

    def box(css: str) -> dict[str, float]:
        return page.run(f"document.querySelector({css!r}).getBoundingClientRect().toJSON()")

    assert 0 < box("#run")["top"] < box("#run")["bottom"] < height, "the button is on the first screen"
    hint = page.all("#numbers .hint")[0]
    page.wait(lambda: hint.is_displayed() == (width < 640))
    overflow = page.run("(t => t.scrollWidth - t.clientWidth)(document.querySelector('.numbers'))")
    assert (overflow > 0) == (width < 640)
    strip, outer = box("#strip .strip"), box("#slider")
    firsts = [box(f"#strip figure:nth-child({n})") for n in (1, 2, 3, 4)]
    assert all(first["top"] == firsts[0]["top"] for first in firsts)
    assert strip["width"] > 0.85 * outer["width"]
    edges = "[...document.querySelectorAll('#strip figure')].map(f => f.getBoundingClientRect().right)"
    last = page.run(f"Math.max(...{edges})")
    assert strip["right"] - last < 2, "the strip uses the whole width"
