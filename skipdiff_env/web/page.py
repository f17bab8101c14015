"""The widgets of the page. They read what a visitor chose, call the workshop, and show what comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import gradio as gr
import numpy as np

from ..chains import NORMAL
from ..errors import SkipDiffError
from ..images import RGB8, write_image
from .choices import Choices
from .game import Game
from .offers import USUAL
from .pictures import MAX_BYTES, slug
from .requests import Recent, Request
from .show import CSS, film_strip, message, number_table
from .study import Result, bicubic_picture, score
from .texts import INTRO, LAYOUT, TO_RESULT
from .whole import Whole
from .widgets import Choice, meter, shown
from .workshop import Workshop

QUEUE = 16
"""Maximum number of jobs that may wait; further ones are refused."""
SESSIONS = 256
"""Number of latest visitors whose jobs can be cancelled."""
MAX_NAME = 100
"""Maximum number of characters of a result's file name that say how it was made."""
KEEP = 3600
"""Seconds for which uploads and results stay on the server."""
LOW, CUBIC, CHAIN, SKIP, ORIGINAL = "low resolution", "bicubic", "full chain", "SkipDiff", "original"
CANCELLED = "cancelled; no result was kept"


def mount(app: Any, workshop: Workshop, folder: Path) -> Any:
    """Mount the page at ``/`` of a FastAPI application.

    Args:
        app: the application.
        workshop: the workshop that does the work.
        folder: folder in which uploads and results are kept.
    """
    page = Page(workshop, folder)
    return gr.mount_gradio_app(
        app, page.blocks, "/", css=CSS + LAYOUT, theme=gr.themes.Default(), max_file_size=MAX_BYTES,
        show_error=False, ssr_mode=False, footer_links=[], run_history=False, enable_monitoring=False,
        pwa=False, mcp_server=False,
    )  # fmt: skip


class Page:
    """The page. Everything that differs between visitors is kept in ``gr.State``.

    Args:
        workshop: the workshop that does the work.
        folder: folder in which uploads and results are kept.

    Attributes:
        blocks: Gradio's page.
    """

    def __init__(self, workshop: Workshop, folder: Path) -> None:
        self.workshop, self.folder = workshop, folder
        self._jobs: Recent[str, threading.Event] = Recent(SESSIONS)
        with gr.Blocks(title="SkipDiff", analytics_enabled=False, delete_cache=(600, KEEP)) as self.blocks:
            gr.Markdown(INTRO, elem_id="intro")
            with gr.Row():
                with gr.Column(scale=2, min_width=300):
                    self.choices = Choices(workshop, folder)
                with gr.Column(scale=5, min_width=320):
                    with gr.Tab("Result"):
                        self._results()
                    with gr.Tab("Decide yourself"):
                        self.game = Game(workshop)
            self._wire()
        self.blocks.queue(max_size=QUEUE, default_concurrency_limit=4)

    # Layout

    def _results(self) -> None:
        self.made = gr.State(None)
        self.pictures = gr.State({})
        self.slider = gr.ImageSlider(
            label="before and after: drag the line", type="numpy", format="png", interactive=False,
            buttons=["fullscreen"], max_height=620, elem_id="slider",
        )  # fmt: skip
        with gr.Row():
            self.left = gr.Dropdown([CUBIC], value=CUBIC, label="left", min_width=120)
            self.right = gr.Dropdown([SKIP], value=SKIP, label="right", min_width=120)
            self.download = gr.DownloadButton(
                "Download the result", interactive=False, min_width=120, elem_id="download"
            )
        self.numbers = gr.HTML(elem_id="numbers")
        self.strip = gr.HTML(elem_id="strip")

    # Events

    def _wire(self) -> None:
        choices = self.choices
        shown = [self.made, self.pictures, self.left, self.right, self.slider, self.numbers, self.strip]
        shown += [self.download, choices.status]
        self.blocks.load(**choices.look)
        self.blocks.load(self._example, None, shown, show_progress_on=choices.status)
        choices.wire()
        for side in (self.left, self.right):
            side.input(_pair, [self.pictures, self.left, self.right], self.slider, show_progress="hidden")
        self._wire_jobs(shown)

    def _wire_jobs(self, shown: list[Any]) -> None:
        choices = self.choices
        heavy: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
        run, cancel, status = choices.run, choices.cancel, choices.status
        buttons = [run, cancel]
        hidden: dict[str, Any] = {"show_progress": "hidden"}
        # Progress has a place of its own, so that a running job does not cover finished results.
        job = run.click(self._started, None, [*buttons, status], **hidden).then(
            self._enlarge, choices.widgets, shown, show_progress_on=status, **heavy
        )
        job.success(None, None, None, js=TO_RESULT)
        later = job.success(
            self._full_chain, [self.made, self.pictures, choices.with_chain],
            [self.pictures, self.left, self.right, self.numbers],
            show_progress_on=status, **heavy,
        )  # fmt: skip
        later.then(_ended, None, buttons, **hidden).then(**choices.look)  # the speed is now known better
        job.failure(_ended, None, buttons, **hidden)
        cancel.click(self._stop, None, [*buttons, status], cancels=[job, later], **hidden)
        self.game.wire(choices.widgets, choices.request, heavy)

    def _started(self, request: gr.Request) -> Choice:
        self._jobs[str(request.session_hash)] = threading.Event()
        return gr.Button(interactive=False), gr.Button(interactive=True), ""

    def _stop(self, request: gr.Request) -> Choice:
        """Cancel the job, which ends at its next network call."""
        self._job(request).set()
        return gr.Button(interactive=True), gr.Button(interactive=False), message(CANCELLED)

    def _job(self, request: gr.Request) -> threading.Event:
        """Return the event that cancels a visitor's newest job."""
        return self._jobs.get_or(str(request.session_hash), threading.Event)

    def _meter(self, progress: Any, what: str, request: gr.Request) -> Callable[[int, int], None]:
        """Make a progress bar that counts network calls until the visitor cancels the job."""
        count, cancelled = meter(progress, what), self._job(request)

        def counted(done: int, total: int) -> None:
            if cancelled.is_set():
                raise SkipDiffError(CANCELLED)
            count(done, total)

        return counted

    def _example(self, request: gr.Request) -> Choice:
        """Show the finished example at first, unless the visitor has already started a job."""
        try:
            made = self._studied(*self.workshop.example(), "An example: choose a photograph, and enlarge it.")
        except SkipDiffError as error:
            raise shown(error) from None
        return (gr.skip(),) * len(made) if str(request.session_hash) in self._jobs else made

    def _enlarge(self, request: gr.Request, *choice: Any, progress: Any = gr.Progress()) -> Choice:  # noqa: B008
        """Enlarge a photograph at full size, or one that is shrunk first."""
        try:
            asked = self.choices.request(*choice)
            if asked.task.whole:
                work = self.workshop.work(asked)
                what = f"{work.tiles} tile{'s' * (work.tiles != 1)}"
                count = self._meter(progress, what, request)
                return self._enlarged(asked, self.workshop.enlarge_whole(asked, self._results_folder, count))
            count = self._meter(progress, SKIP, request)
            return self._studied(asked, self.workshop.enlarge(asked, count))
        except SkipDiffError as error:
            raise shown(error) from None

    @property
    def _results_folder(self) -> Path:
        return self.folder / "files"

    def _enlarged(self, request: Request, whole: Whole) -> Choice:
        """Show the preview of a photograph that was enlarged at full size."""
        width, height = whole.size
        megabytes = whole.file.stat().st_size / 2**20
        text = [
            f"{width}x{height} pixels, {megabytes:.1f} MB",
            f"{whole.evaluations} evaluation{'s' * (whole.evaluations != 1)}",
        ]
        text += [f"{whole.seconds:.1f} s", *whole.notes]
        if whole.after.shape[1] < width:
            text.append(f"shown here at {whole.after.shape[1]}x{whole.after.shape[0]}")
        pictures = {CUBIC: whole.before, SKIP: whole.after}
        return self._shown(None, pictures, "", "", whole.file, "; ".join(text))

    def _studied(self, request: Request, result: Result, text: str = "") -> Choice:
        """Show a picture with its numbers and its film strip."""
        task, model = request.task, self.workshop.model(request.model)
        pictures = {
            LOW: task.lr.repeat(model.scale, 0).repeat(model.scale, 1),
            CUBIC: bicubic_picture(task, model.scale),
            SKIP: result.picture,
        }
        if task.hr is not None:
            pictures[ORIGINAL] = task.hr
        made: dict[str, Any] = {CUBIC: None, SKIP: result}
        rows = [(name, score(pictures[name], task.hr, model.device), made[name]) for name in made]
        file, strip = self._save(request, result.picture), film_strip(result.frames)
        return self._shown((request, rows), pictures, number_table(rows), strip, file, text)

    def _shown(
        self, made: Any, pictures: dict[str, RGB8], numbers: str, strip: str, file: Path, text: str
    ) -> Choice:
        names = [name for name in (LOW, CUBIC, CHAIN, SKIP, ORIGINAL) if name in pictures]
        download = gr.DownloadButton(value=str(file), interactive=True)
        return (
            made, pictures, gr.Dropdown(names, value=CUBIC), gr.Dropdown(names, value=SKIP),
            (pictures[CUBIC], pictures[SKIP]), numbers, strip, download, message(text),
        )  # fmt: skip

    def _full_chain(
        self, request: gr.Request, made: tuple[Request, list[Any]] | None, pictures: dict[str, RGB8],
        with_chain: bool, progress: Any = gr.Progress(),  # noqa: B008
    ) -> Choice:  # fmt: skip
        """Run the full chain, if the visitor asked for it, and add it to a finished result."""
        if made is None or not with_chain:
            return (gr.skip(),) * 4
        asked, rows = made
        device = self.workshop.model(asked.model).device
        try:
            full = self.workshop.chain(asked, self._meter(progress, CHAIN, request))
        except SkipDiffError as error:
            raise shown(error) from None
        pictures = {**pictures, CHAIN: full.picture}
        rows = [rows[0], (CHAIN, score(full.picture, asked.task.hr, device), full), *rows[1:]]
        names = [name for name in (LOW, CUBIC, CHAIN, SKIP, ORIGINAL) if name in pictures]
        return pictures, gr.Dropdown(names), gr.Dropdown(names), number_table(rows)

    def _save(self, request: Request, picture: RGB8) -> Path:
        fine = self.workshop.fine_steps(request.model, request.coarse_steps)
        how: list[Any] = [request.plan or request.policy, request.coarse_steps, fine]
        if request.plan:
            how = how[:1]
        elif request.policy == USUAL:
            how = [request.model, *([request.effort] if request.effort != NORMAL else [])]
        made = slug(" ".join(map(str, how)))[:MAX_NAME]
        words = [request.task.name, "skipdiff", made, "seed", request.seed]
        self._results_folder.mkdir(parents=True, exist_ok=True)
        file = Path(mkdtemp(dir=self._results_folder)) / f"{slug('-'.join(map(str, words)))}.png"
        write_image(file, picture)
        return file


def _ended() -> Choice:
    return gr.Button(interactive=True), gr.Button(interactive=False)


def _pair(pictures: dict[str, RGB8], left: str, right: str) -> tuple[np.ndarray, np.ndarray] | None:
    return (pictures[left], pictures[right]) if left in pictures and right in pictures else None
