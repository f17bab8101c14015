"""The widgets of the page. They read what a visitor chose, call the workshop, and show what comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import gradio as gr
import numpy as np

from ..errors import SkipDiffError
from ..images import PHOTOGRAPHS, RGB8, write_image
from .game import Game
from .pictures import MAX_BYTES, MAX_PIXELS, Upload, bundled, read_upload, slug
from .requests import Request
from .show import CSS, duration, film_strip, message, number_table
from .study import Result, bicubic_picture, score
from .whole import Whole
from .widgets import Choice, meter, shown, told
from .workshop import EXAMPLE, FIXED, MAX_SEED, USUAL, Workshop

QUEUE = 16
"""Jobs that may wait; further ones are turned away."""
KEEP = 3600
"""Seconds that uploads and results stay on the server."""
LOW, CUBIC, CHAIN, SKIP, ORIGINAL = "low resolution", "bicubic", "full chain", "SkipDiff", "original"
CANCELLED = "cancelled; nothing is left of it"
INTRO = """# SkipDiff
Photographs, four times larger, by a diffusion model that leaves out most of its steps."""
ADVANCED = """Without these, everything is as `skipdiff upscale` does it, with what suits the model.

A diffusion model turns noise into a picture level by level. SkipDiff first takes **S** coarse steps, each over
many levels, and then has **F** fine levels left. At each of them a **policy** decides: *denoise* costs a network
call and adds detail, *skip* goes down for nothing, back to what the coarse steps ended on. A fixed start *k*
skips down to level *k* and denoises from there. Choose a model first: `auto` takes what suits the photograph."""
LAYOUT = """
.gradio-container {max-width: 1280px !important; width: 100% !important; margin: auto !important;
  box-sizing: border-box}
#photographs .grid-wrap {min-height: 0; height: auto; padding: 0}
#photographs .grid-container {grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 4px; padding: 4px}
#photographs .thumbnail-item {min-width: 0; width: 100%; height: auto; aspect-ratio: 1}
#photographs .caption-label {font-size: 11px; padding: 0 4px}
#estimated img {width: 100%; height: 100%; object-fit: contain}
#photographs {min-height: 0 !important}
#upload .icon-wrap {display: none}
@media (max-width: 640px) {
  .gradio-container {padding: 8px !important}
  #intro h1 {margin: 0}
}
"""


def mount(app: Any, workshop: Workshop, folder: Path) -> Any:
    """The page at ``/`` of a FastAPI application.

    Args:
        app: the application.
        workshop: what the page shows.
        folder: where uploads and results are kept.
    """
    page = Page(workshop, folder)
    return gr.mount_gradio_app(
        app, page.blocks, "/", css=CSS + LAYOUT, theme=gr.themes.Default(), max_file_size=MAX_BYTES,
        show_error=False, ssr_mode=False, footer_links=[], run_history=False, enable_monitoring=False,
        pwa=False, mcp_server=False,
    )  # fmt: skip


TO_RESULT = "() => {if (innerWidth < 700) document.querySelector('#slider').scrollIntoView()}"
"""On a phone the result lies below all that can be chosen."""


class Page:
    """One page; what differs between visitors lies in ``gr.State``.

    Args:
        workshop: does the work.
        folder: where uploads and results are kept.

    Attributes:
        blocks: Gradio's page.
    """

    def __init__(self, workshop: Workshop, folder: Path) -> None:
        self.workshop, self.folder = workshop, folder
        self._cancelled: set[str] = set()
        with gr.Blocks(title="SkipDiff", analytics_enabled=False, delete_cache=(600, KEEP)) as self.blocks:
            gr.Markdown(INTRO, elem_id="intro")
            with gr.Row():
                with gr.Column(scale=2, min_width=300):
                    self._settings()
                with gr.Column(scale=5, min_width=320):
                    with gr.Tab("Result"):
                        self._results()
                    with gr.Tab("Decide yourself"):
                        self.game = Game(workshop)
            self._wire()
        self.blocks.queue(max_size=QUEUE, default_concurrency_limit=4)

    # What is seen

    def _settings(self) -> None:
        self.picture = gr.State(bundled(EXAMPLE))
        self.photographs = gr.Gallery(
            [(photo.read_small(), photo.name) for photo in PHOTOGRAPHS], show_label=False, columns=4,
            height="auto", allow_preview=False, selected_index=EXAMPLE, object_fit="cover", buttons=[],
            interactive=False, elem_id="photographs",
        )  # fmt: skip
        limits = f"{MAX_BYTES // 2**20} MB, {MAX_PIXELS // 10**6} megapixels"
        self.upload = gr.File(label=f"or your own, up to {limits}", height=110, elem_id="upload")
        self.reference = gr.Radio(
            [("enlarge it as it is", False), ("shrink it first, compare with the original", True)],
            value=True, label="What to do with it", elem_id="reference",
        )  # fmt: skip
        with gr.Row():
            self.run = gr.Button("Enlarge", variant="primary", min_width=120, elem_id="run")
            self.cancel = gr.Button("Cancel", interactive=False, min_width=80, elem_id="cancel")
        self.status = gr.HTML(elem_id="status", min_height=56)
        self.note = gr.HTML(elem_id="note")
        self.estimate = gr.HTML(elem_id="estimate")
        share: dict[str, Any] = {"minimum": 0, "maximum": 1, "value": 1, "step": 0.05}
        self.clean = gr.Slider(
            **share, label="Clean", info="how much noise and blocking to remove", elem_id="clean"
        )
        self.detail = gr.Slider(
            **share, label="Detail", info="how much invented detail; 0 is the faithful mean", elem_id="detail"
        )
        with gr.Accordion("Advanced", open=False, elem_id="advanced"):
            self._advanced()

    def _advanced(self) -> None:
        shop = self.workshop
        model = shop.models[0]
        gr.Markdown(ADVANCED)
        self.model = gr.Dropdown(shop.models, value=model, label="Model", visible=len(shop.models) > 1)
        self.steps = gr.Dropdown(self._pairs(model), value=shop.usual_steps(model), label="Step pair (S, F)")
        policies = shop.policies(model, shop.usual_steps(model))
        self.policy = gr.Dropdown(policies, value=policies[0], label="Policy", elem_id="policy")
        fine = shop.fine_steps(model, shop.usual_steps(model))
        start = shop.usual_start(model, shop.usual_steps(model))
        self.start = gr.Slider(
            1, fine, value=start, step=1, label="Start level k", visible=False, elem_id="start"
        )
        self.seed = gr.Number(0, label="Noise seed", precision=0, minimum=0, maximum=MAX_SEED)
        self.with_chain = gr.Checkbox(
            False, label="also the full chain, where there is an original to compare with", elem_id="chain"
        )

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

    # What happens

    def _wire(self) -> None:
        choice = [self.picture, self.reference, self.model, self.policy, self.start, self.steps, self.seed]
        choice += [self.clean, self.detail]
        see: dict[str, Any] = {
            "fn": told(self._look), "inputs": [*choice, self.with_chain],
            "outputs": [self.note, self.estimate], "show_progress": "hidden",
        }  # fmt: skip
        shown = [self.made, self.pictures, self.left, self.right, self.slider, self.numbers, self.strip]
        shown += [self.download, self.status]
        self.blocks.load(**see)
        self.blocks.load(self._example, None, shown, show_progress_on=self.status)
        self.photographs.select(told(self._pick), None, [self.picture, self.upload, self.reference]).then(
            **see
        )
        self.upload.upload(
            told(self._take), self.upload, [self.picture, self.note, self.photographs, self.reference]
        ).success(**see)
        self.upload.clear(_nothing, None, [self.picture, self.note, self.estimate])
        self.model.input(
            told(self._switch), self.model, [self.steps, self.policy, self.start], show_progress="hidden"
        ).then(**see)
        chosen = [self.model, self.steps, self.policy]
        self.steps.input(
            told(self._other_steps), chosen, [self.policy, self.start], show_progress="hidden"
        ).then(**see)
        self.policy.input(told(self._other_policy), chosen, self.start, show_progress="hidden").then(**see)
        for part in (self.reference, self.start, self.seed, self.with_chain, self.clean, self.detail):
            part.change(**see)
        for side in (self.left, self.right):
            side.input(_pair, [self.pictures, self.left, self.right], self.slider, show_progress="hidden")
        self._wire_jobs(choice, shown, see)

    def _wire_jobs(self, choice: list[Any], shown: list[Any], see: dict[str, Any]) -> None:
        heavy: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
        buttons = [self.run, self.cancel]
        hidden: dict[str, Any] = {"show_progress": "hidden"}
        # Progress lies in a place of its own: nothing that is finished is covered by what still runs.
        job = self.run.click(self._started, None, [*buttons, self.status], **hidden).then(
            self._enlarge, choice, shown, show_progress_on=self.status, **heavy
        )
        job.success(None, None, None, js=TO_RESULT)
        later = job.success(
            self._full_chain, [self.made, self.pictures, self.with_chain],
            [self.pictures, self.left, self.right, self.numbers],
            show_progress_on=self.status, **heavy,
        )  # fmt: skip
        later.then(_ended, None, buttons, **hidden).then(**see)  # the pace is now known better
        job.failure(_ended, None, buttons, **hidden)
        self.cancel.click(self._stop, None, [*buttons, self.status], cancels=[job, later], **hidden)
        self.game.wire(choice, self._request, heavy)

    def _pairs(self, model: str) -> list[tuple[str, int]]:
        shop = self.workshop
        return [(f"({s}, {shop.fine_steps(model, s)})", s) for s in shop.step_pairs(model)]

    def _pick(self, event: gr.SelectData) -> Choice:
        return bundled(int(event.index)), None, True

    def _take(self, path: str | None) -> Choice:
        """An upload; a bad one is said where the picture's size would be, and no picture is chosen."""
        file = Path(path or "").resolve()
        if not path or not file.is_relative_to(self.folder.resolve()):
            raise SkipDiffError("this is no file that was uploaded here")
        try:
            return read_upload(file, file.name), "", gr.Gallery(selected_index=None), False
        except SkipDiffError as error:
            return None, message(str(error), bad=True), gr.Gallery(selected_index=None), False
        finally:
            file.unlink(missing_ok=True)

    def _switch(self, model: str) -> Choice:
        """What another model offers."""
        steps = self.workshop.usual_steps(model)
        return gr.Dropdown(self._pairs(model), value=steps), *self._other_steps(model, steps, None)

    def _other_steps(self, model: str, steps: int, policy: str | None) -> Choice:
        """What another step pair offers; the policy stays, if it can."""
        policies = self.workshop.policies(model, steps)
        policy = policy if policy in policies else policies[0]
        return gr.Dropdown(policies, value=policy), self._other_policy(model, steps, policy)

    def _other_policy(self, model: str, steps: int, policy: str) -> Any:
        shop = self.workshop
        top, usual = shop.fine_steps(model, steps), shop.usual_start(model, steps)
        return gr.Slider(maximum=top, value=usual, visible=policy == FIXED)

    def _request(
        self, picture: Upload | None, reference: bool, model: str, policy: str, start: float, steps: int,
        seed: float | None, clean: float = 1.0, detail: float = 1.0,
    ) -> Request:  # fmt: skip
        if picture is None:
            raise SkipDiffError("choose a photograph first")
        shop = self.workshop
        task = shop.task(picture, model, reference)
        return shop.request(
            task, model, policy, int(start), steps, -1 if seed is None else seed, clean, detail
        )

    def _look(self, *choice: Any) -> Choice:
        """What is done to the picture, and how long it will take."""
        *settings, with_chain = choice
        if settings[0] is None:
            return gr.skip(), ""
        shop = self.workshop
        try:
            request = self._request(*settings)
            text = self._time(request, with_chain)
        except SkipDiffError as error:
            return message(str(error), bad=True), ""
        notes = [request.task.note, *request.notes, shop.notice(request.model)]
        return message("; ".join(filter(None, notes))), message(text + "One job at a time; others wait.")

    def _time(self, request: Request, with_chain: bool) -> str:
        shop = self.workshop
        if request.task.whole:
            work, seconds = shop.work(request), shop.seconds_whole(request)
            tiles = f"{work.tiles} tile{'s' * (work.tiles != 1)}"
            return f"About {duration(seconds)}: {work.calls} network calls on {tiles}. "
        calls = shop.calls(request)
        text = f"About {duration(shop.seconds(request, calls))}: {calls} network calls. "
        if with_chain:
            full = shop.levels(request.model)
            text += f"The full chain: {full} calls, about {duration(shop.seconds(request, full))}. "
        return text

    def _started(self, request: gr.Request) -> Choice:
        self._cancelled.discard(str(request.session_hash))
        return gr.Button(interactive=False), gr.Button(interactive=True), ""

    def _stop(self, request: gr.Request) -> Choice:
        """Cancel: the job ends at its next network call."""
        self._cancelled.add(str(request.session_hash))
        return gr.Button(interactive=True), gr.Button(interactive=False), message(CANCELLED)

    def _meter(self, progress: Any, what: str, session: str) -> Callable[[int, int], None]:
        """A bar that counts network calls, until its visitor cancels."""
        count = meter(progress, what)

        def counted(done: int, total: int) -> None:
            if session in self._cancelled:
                raise SkipDiffError(CANCELLED)
            count(done, total)

        return counted

    def _example(self) -> Choice:
        """What is seen at first, finished."""
        try:
            return self._studied(*self.workshop.example(), "An example: choose a photograph, and enlarge it.")
        except SkipDiffError as error:
            raise shown(error) from None

    def _enlarge(self, *choice: Any, progress: Any = gr.Progress(), request: gr.Request) -> Choice:  # noqa: B008
        """The result, of a photograph at full size or of one that was shrunk first."""
        session = str(request.session_hash)
        try:
            asked = self._request(*choice)
            if asked.task.whole:
                work = self.workshop.work(asked)
                what = f"{work.tiles} tile{'s' * (work.tiles != 1)}"
                count = self._meter(progress, what, session)
                return self._enlarged(asked, self.workshop.enlarge_whole(asked, self._results_folder, count))
            count = self._meter(progress, SKIP, session)
            return self._studied(asked, self.workshop.enlarge(asked, count))
        except SkipDiffError as error:
            raise shown(error) from None

    @property
    def _results_folder(self) -> Path:
        return self.folder / "files"

    def _enlarged(self, request: Request, whole: Whole) -> Choice:
        """A photograph at full size, of which the page shows a preview."""
        width, height = whole.size
        megabytes = whole.file.stat().st_size / 2**20
        text = [f"{width}x{height} pixels, {megabytes:.1f} MB", f"{whole.evaluations} evaluations"]
        text += [f"{whole.seconds:.1f} s", *request.notes, *whole.notes]
        if whole.after.shape[1] < width:
            text.append(f"shown here at {whole.after.shape[1]}x{whole.after.shape[0]}")
        pictures = {CUBIC: whole.before, SKIP: whole.after}
        return self._shown(None, pictures, "", "", whole.file, "; ".join(text))

    def _studied(self, request: Request, result: Result, text: str = "") -> Choice:
        """A picture with its numbers and its film strip."""
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
        self, made: tuple[Request, list[Any]] | None, pictures: dict[str, RGB8], with_chain: bool,
        progress: Any = gr.Progress(), *, request: gr.Request,  # noqa: B008
    ) -> Choice:  # fmt: skip
        """Where it was asked for, the full chain beside a result that is there already."""
        if made is None or not with_chain:
            return (gr.skip(),) * 4
        asked, rows = made
        device = self.workshop.model(asked.model).device
        try:
            full = self.workshop.chain(asked, self._meter(progress, CHAIN, str(request.session_hash)))
        except SkipDiffError as error:
            raise shown(error) from None
        pictures = {**pictures, CHAIN: full.picture}
        rows = [rows[0], (CHAIN, score(full.picture, asked.task.hr, device), full), *rows[1:]]
        names = [name for name in (LOW, CUBIC, CHAIN, SKIP, ORIGINAL) if name in pictures]
        return pictures, gr.Dropdown(names), gr.Dropdown(names), number_table(rows)

    def _save(self, request: Request, picture: RGB8) -> Path:
        fine = self.workshop.fine_steps(request.model, request.coarse_steps)
        how = [request.policy, request.coarse_steps, fine]
        how = [request.model] if request.policy == USUAL else how
        words = [request.task.name, "skipdiff", *how, "seed", request.seed]
        self._results_folder.mkdir(parents=True, exist_ok=True)
        file = Path(mkdtemp(dir=self._results_folder)) / f"{slug('-'.join(map(str, words)))}.png"
        write_image(file, picture)
        return file


def _nothing() -> Choice:
    return None, message("Choose one of the photographs, or upload your own."), ""


def _ended() -> Choice:
    return gr.Button(interactive=True), gr.Button(interactive=False)


def _pair(pictures: dict[str, RGB8], left: str, right: str) -> tuple[np.ndarray, np.ndarray] | None:
    return (pictures[left], pictures[right]) if left in pictures and right in pictures else None
