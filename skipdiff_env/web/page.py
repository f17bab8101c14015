"""The widgets of the page. They read what a visitor chose, call the workshop, and show what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from html import escape
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import gradio as gr
import numpy as np

from ..errors import SkipDiffError
from ..images import PHOTOGRAPHS, RGB8, write_image
from .pictures import MAX_BYTES, MAX_PIXELS, read_upload, slug
from .show import CSS, comparison_table, duration, film_strip, message, number_table
from .study import bicubic_picture, score
from .workshop import FIXED, MAX_SEED, USUAL, Request, Workshop

FIRST = 1
"""The bundled photograph that is chosen at first: the cat."""
QUEUE = 16
"""Jobs that may wait; further ones are turned away."""
KEEP = 3600
"""Seconds that uploads and results stay on the server."""
LOW, CUBIC, CHAIN, SKIP, ORIGINAL = "low resolution", "bicubic", "full chain", "SkipDiff", "original"
INTRO = """# SkipDiff
A diffusion model enlarges a photograph; at each of the last levels a policy either denoises or skips."""
RULES = """Play the agent's part. Each level shows its latent and what the model takes the picture to be.
**Denoise** costs a network call and goes one level down; **skip** goes down, too, but back to the latent the
coarse steps ended on, and everything you denoised so far is lost. At level 1 the model always denoises."""
LAYOUT = """
.gradio-container {max-width: 1280px !important; width: 100% !important; margin: auto !important;
  box-sizing: border-box}
#photographs .grid-wrap {min-height: 0; height: auto; padding: 0}
#photographs .grid-container {grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 4px; padding: 4px}
#photographs .thumbnail-item {min-width: 0; width: 100%; height: auto; aspect-ratio: 1}
#photographs .caption-label {font-size: 11px; padding: 0 4px}
#estimated img {width: 100%; height: 100%; object-fit: contain}
"""

Choice = tuple[Any, ...]


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


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Show a SkipDiffError as a message; Gradio's are HTML."""

    @wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except SkipDiffError as error:
            raise gr.Error(escape(str(error)), print_exception=False) from None

    return wrapped


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
        with gr.Blocks(title="SkipDiff", analytics_enabled=False, delete_cache=(600, KEEP)) as self.blocks:
            gr.Markdown(INTRO)
            with gr.Row():
                with gr.Column(scale=2, min_width=300):
                    self._settings()
                with gr.Column(scale=5, min_width=320):
                    with gr.Tab("Result"):
                        self._results()
                    with gr.Tab("Play"):
                        self._game()
            self._wire()
        self.blocks.queue(max_size=QUEUE, default_concurrency_limit=4)

    # What is seen

    def _settings(self) -> None:
        shop = self.workshop
        model = shop.models[0]
        self.picture = gr.State(shop.photograph(FIRST))
        self.photographs = gr.Gallery(
            [(photo.read_small(), photo.name) for photo in PHOTOGRAPHS], show_label=False, columns=4,
            height="auto", allow_preview=False, selected_index=FIRST, object_fit="cover", buttons=[],
            interactive=False, elem_id="photographs",
        )  # fmt: skip
        limits = f"{MAX_BYTES // 2**20} MB, {MAX_PIXELS // 10**6} megapixels"
        self.upload = gr.File(label=f"or your own, up to {limits}", height=150, elem_id="upload")
        self.reference = gr.Radio(
            [("shrink it first, compare with the original", True), ("enlarge it as it is", False)],
            value=True, label="What to do with it",
        )  # fmt: skip
        self.note = gr.HTML(elem_id="note")
        self.model = gr.Dropdown(shop.models, value=model, label="Model", visible=len(shop.models) > 1)
        self.steps = gr.Dropdown(self._pairs(model), value=shop.usual_steps(model), label="Step pair (S, F)")
        policies = shop.policies(model, shop.usual_steps(model))
        self.policy = gr.Dropdown(policies, value=policies[0], label="Policy", elem_id="policy")
        fine = shop.fine_steps(model, shop.usual_steps(model))
        start = shop.usual_start(model, shop.usual_steps(model))
        self.start = gr.Slider(1, fine, value=start, step=1, label="Start level k", visible=False)
        self.seed = gr.Number(0, label="Noise seed", precision=0, minimum=0, maximum=MAX_SEED)

    def _results(self) -> None:
        self.with_chain = gr.Checkbox(True, label="also the full chain, for comparison")
        self.estimate = gr.HTML(elem_id="estimate")
        self.run = gr.Button("Enlarge", variant="primary", elem_id="run")
        self.pictures = gr.State({})
        self.slider = gr.ImageSlider(
            label="before and after: drag the line", type="numpy", format="png", interactive=False,
            buttons=["fullscreen"], max_height=620, elem_id="slider",
        )  # fmt: skip
        with gr.Row():
            self.left = gr.Dropdown([CUBIC], value=CUBIC, label="left", min_width=120)
            self.right = gr.Dropdown([SKIP], value=SKIP, label="right", min_width=120)
            self.download = gr.DownloadButton(
                "Download PNG", interactive=False, min_width=120, elem_id="download"
            )
        self.numbers = gr.HTML(elem_id="numbers")
        self.strip = gr.HTML(elem_id="strip")

    def _game(self) -> None:
        gr.Markdown(RULES)
        self.game = gr.State(None)
        with gr.Row():
            self.new = gr.Button("New game", variant="primary", min_width=100, elem_id="new")
            off: dict[str, Any] = {"interactive": False, "min_width": 100}
            self.denoise = gr.Button("Denoise", elem_id="denoise", **off)
            self.skip = gr.Button("Skip", elem_id="skip", **off)
            self.back = gr.Button("Take back", elem_id="back", **off)
        self.standing = gr.HTML(elem_id="standing")
        self.film = gr.HTML(elem_id="film")
        self.estimated = gr.Image(
            label="the model's estimate now",
            format="png",
            interactive=False,
            buttons=[],
            height=400,
            elem_id="estimated",
        )
        with gr.Row():
            self.judge = gr.Radio([("NIQE", "niqe"), ("LPIPS", "lpips")], value="niqe", label="Judged by")
            self.compare = gr.Button("Compare with the policy and the optimum", elem_id="compare", **off)
        self.ranking = gr.HTML(elem_id="ranking")

    # What happens

    def _wire(self) -> None:
        choice = [self.picture, self.reference, self.model, self.policy, self.start, self.steps, self.seed]
        looked = [self.note, self.estimate]
        see: dict[str, Any] = {
            "fn": told(self._look),
            "inputs": [*choice, self.with_chain],
            "outputs": looked,
        }
        self.blocks.load(**see, show_progress="hidden")
        self.photographs.select(told(self._pick), None, [self.picture, self.upload]).then(**see)
        self.upload.upload(
            told(self._take), self.upload, [self.picture, self.note, self.photographs]
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
        for part in (self.reference, self.start, self.seed, self.with_chain):
            part.input(**see, show_progress="hidden")
        heavy: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
        shown = [self.pictures, self.left, self.right, self.slider, self.numbers, self.strip, self.download]
        self.run.click(
            self._enlarge, [*choice, self.with_chain], shown, show_progress_on=self.slider, **heavy
        ).then(**see, show_progress="hidden")  # the pace is now known better
        for side in (self.left, self.right):
            side.input(_pair, [self.pictures, self.left, self.right], self.slider, show_progress="hidden")
        table = [self.game, self.standing, self.film, self.estimated, self.denoise, self.skip, self.back]
        table += [self.compare, self.ranking]
        playing: dict[str, Any] = {"outputs": table, "show_progress_on": self.estimated, **heavy}
        self.new.click(told(self._begin), choice, **playing)
        for button, move in ((self.denoise, 0), (self.skip, 1), (self.back, None)):
            button.click(told(self._move(move)), self.game, **playing)
        self.compare.click(
            told(self._compare), [self.game, self.judge], self.ranking, show_progress_on=self.ranking, **heavy
        )

    def _pairs(self, model: str) -> list[tuple[str, int]]:
        shop = self.workshop
        return [(f"({s}, {shop.fine_steps(model, s)})", s) for s in shop.step_pairs(model)]

    def _pick(self, event: gr.SelectData) -> Choice:
        return self.workshop.photograph(int(event.index)), None

    def _take(self, path: str | None) -> Choice:
        """An upload; a bad one is said where the picture's size would be, and no picture is chosen."""
        file = Path(path or "").resolve()
        if not path or not file.is_relative_to(self.folder.resolve()):
            raise SkipDiffError("this is no file that was uploaded here")
        try:
            return (read_upload(file, file.name), file.name), "", gr.Gallery(selected_index=None)
        except SkipDiffError as error:
            return None, message(str(error), bad=True), gr.Gallery(selected_index=None)
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
        self, picture: tuple[RGB8, str] | None, reference: bool, model: str, policy: str, start: float,
        steps: int, seed: float | None,
    ) -> Request:  # fmt: skip
        if picture is None:
            raise SkipDiffError("choose a photograph first")
        task = self.workshop.task(*picture, model, reference)
        return self.workshop.request(task, model, policy, int(start), steps, -1 if seed is None else seed)

    def _look(self, *choice: Any) -> Choice:
        """What is done to the picture, and how long it will take."""
        *settings, with_chain = choice
        if settings[0] is None:
            return gr.skip(), ""
        shop = self.workshop
        try:
            request = self._request(*settings)
        except SkipDiffError as error:
            return message(str(error), bad=True), ""
        notes = [request.task.note, shop.notice(request.model)]
        calls = shop.calls(request)
        text = f"SkipDiff: {calls} network calls, about {duration(shop.seconds(request, calls))}. "
        if with_chain:
            full = shop.levels(request.model)
            text += f"The full chain: {full} calls, about {duration(shop.seconds(request, full))}. "
        return message("; ".join(filter(None, notes))), message(text + "One job at a time; others wait.")

    def _enlarge(self, *choice: Any, progress: Any = gr.Progress()) -> Iterator[Choice]:  # noqa: B008
        """SkipDiff's result as soon as it is there, then the full chain's."""
        try:
            *settings, with_chain = choice
            request = self._request(*settings)
            yield from self._steps(request, with_chain, progress)
        except SkipDiffError as error:
            raise gr.Error(escape(str(error)), print_exception=False) from None

    def _steps(self, request: Request, with_chain: bool, progress: Any) -> Iterator[Choice]:
        task, shop = request.task, self.workshop
        model = shop.model(request.model)
        result = shop.enlarge(request, _meter(progress, "SkipDiff"))
        pictures = {
            LOW: task.lr.repeat(model.scale, 0).repeat(model.scale, 1),
            CUBIC: bicubic_picture(task, model.scale),
            SKIP: result.picture,
        }
        if task.hr is not None:
            pictures[ORIGINAL] = task.hr
        made: dict[str, Any] = {CUBIC: None, SKIP: result}
        rows = [(name, score(pictures[name], task.hr, model.device), made[name]) for name in made]
        file = self._save(request, result.picture)
        strip = film_strip(result.frames)
        yield self._shown(pictures, rows, strip, file)
        if with_chain:
            full = shop.chain(request, _meter(progress, "full chain"))
            pictures = {**pictures, CHAIN: full.picture}
            rows.insert(1, (CHAIN, score(full.picture, task.hr, model.device), full))
            yield self._shown(pictures, rows, gr.skip(), gr.skip())

    def _shown(self, pictures: dict[str, RGB8], rows: list[Any], strip: Any, file: Any) -> Choice:
        names = [n for n in (LOW, CUBIC, CHAIN, SKIP, ORIGINAL) if n in pictures]
        download = gr.DownloadButton(value=str(file), interactive=True) if isinstance(file, Path) else file
        return (
            pictures, gr.Dropdown(names, value=CUBIC), gr.Dropdown(names, value=SKIP),
            (pictures[CUBIC], pictures[SKIP]), number_table(rows), strip, download,
        )  # fmt: skip

    def _save(self, request: Request, picture: RGB8) -> Path:
        fine = self.workshop.fine_steps(request.model, request.coarse_steps)
        how = [request.policy, request.coarse_steps, fine]
        how = [request.model] if request.policy == USUAL else how
        words = [request.task.name, "skipdiff", *how, "seed", request.seed]
        results = self.folder / "files"
        results.mkdir(parents=True, exist_ok=True)
        file = Path(mkdtemp(dir=results)) / f"{slug('-'.join(map(str, words)))}.png"
        write_image(file, picture)
        return file

    def _begin(self, *choice: Any, progress: Any = gr.Progress()) -> Choice:  # noqa: B008
        return self._table(self._request(*choice), (), progress)

    def _move(self, move: int | None) -> Callable[..., Choice]:
        def moved(game: tuple[Request, tuple[int, ...]] | None, progress: Any = gr.Progress()) -> Choice:  # noqa: B008
            if game is None:
                raise SkipDiffError("begin a new game first")
            request, actions = game
            return self._table(request, actions[:-1] if move is None else (*actions, move), progress)

        return moved

    def _table(self, request: Request, actions: tuple[int, ...], progress: Any) -> Choice:
        place = self.workshop.play(request, actions, _meter(progress, "network calls"))
        over = place.level == 0
        fine = self.workshop.fine_steps(request.model, request.coarse_steps)
        text = f"Level {place.level} of {fine}, {place.evaluations} network calls so far."
        if over:
            text = f"The game is over after {place.evaluations} network calls. "
            calls = self.workshop.optimum_calls(request)
            text += f"Comparing takes up to {calls} calls, about "
            text += f"{duration(self.workshop.seconds(request, calls))}; what you reached is looked up."
        return (
            (request, actions), message(text), film_strip(place.frames, not over),
            place.picture, gr.Button(interactive=not over), gr.Button(interactive=not over),
            gr.Button(interactive=bool(actions)), gr.Button(interactive=over), "",
        )  # fmt: skip

    def _compare(
        self, game: tuple[Request, tuple[int, ...]] | None, metric: str, progress: Any = gr.Progress()  # noqa: B008
    ) -> str:  # fmt: skip
        if game is None:
            raise SkipDiffError("play a game first")
        try:
            lines = self.workshop.compare(*game, metric, _meter(progress, "every outcome"))
        except SkipDiffError as error:  # no original, or too small a picture: stays to be read
            return message(str(error), bad=True)
        return comparison_table(lines, metric)


def _nothing() -> Choice:
    return None, message("Choose one of the photographs, or upload your own."), ""


def _pair(pictures: dict[str, RGB8], left: str, right: str) -> tuple[np.ndarray, np.ndarray] | None:
    return (pictures[left], pictures[right]) if left in pictures and right in pictures else None


def _meter(progress: Any, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress((done, total), desc=what, unit="network calls")
