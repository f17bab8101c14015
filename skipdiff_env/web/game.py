"""The tab in which visitors take the decisions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from ..errors import SkipDiffError
from ..progress import duration
from .requests import Request
from .show import comparison_table, film_strip, message
from .widgets import Choice, meter, told
from .workshop import Workshop

RULES = """Decide in the agent's place. Each level shows its latent and the model's estimate of the picture.
**Denoise** costs a network call and goes down one level. **Skip** also goes down one level, but returns to
the latent at the end of the coarse jumps, so all your denoising so far is lost. At level 1 the model always
denoises. If the photograph is enlarged as it is, only its middle is used here."""


class Game:
    """The tab's widgets and what they do.

    Args:
        workshop: the workshop that does the work.
    """

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        gr.Markdown(RULES)
        self.game = gr.State(None)
        with gr.Row():
            self.new = gr.Button("Begin", variant="primary", min_width=100, elem_id="new")
            off: dict[str, Any] = {"interactive": False, "min_width": 100}
            self.denoise = gr.Button("Denoise", elem_id="denoise", **off)
            self.skip = gr.Button("Skip", elem_id="skip", **off)
            self.back = gr.Button("Undo", elem_id="back", **off)
        self.standing = gr.HTML(elem_id="standing", min_height=48)
        self.film = gr.HTML(elem_id="film")
        self.estimated = gr.Image(
            label="the model's estimate now", format="png", interactive=False, buttons=[], height=400,
            elem_id="estimated",
        )  # fmt: skip
        with gr.Row():
            self.judge = gr.Radio([("NIQE", "niqe"), ("LPIPS", "lpips")], value="niqe", label="Scored by")
            self.compare = gr.Button("Compare with the policy and the optimum", elem_id="compare", **off)
        self.ranking = gr.HTML(elem_id="ranking", min_height=48)

    def wire(self, choice: list[Any], request: Callable[..., Request], heavy: dict[str, Any]) -> None:
        """Connect the widgets.

        Args:
            choice: the widgets that describe the request.
            request: function that makes a request from their values.
            heavy: arguments of events that run the model, for Gradio's queue.
        """

        def begin(*chosen: Any, progress: Any = gr.Progress()) -> Choice:  # noqa: B008
            return self._table(request(*chosen), (), progress)

        table = [self.game, self.standing, self.film, self.estimated, self.denoise, self.skip, self.back]
        table += [self.compare, self.ranking]
        playing: dict[str, Any] = {"outputs": table, "show_progress_on": self.standing, **heavy}
        self.new.click(told(begin), choice, **playing)
        for button, move in ((self.denoise, 0), (self.skip, 1), (self.back, None)):
            button.click(told(self._move(move)), self.game, **playing)
        self.compare.click(
            told(self._compare), [self.game, self.judge], self.ranking, show_progress_on=self.ranking, **heavy
        )

    def _move(self, move: int | None) -> Callable[..., Choice]:
        def moved(game: tuple[Request, tuple[int, ...]] | None, progress: Any = gr.Progress()) -> Choice:  # noqa: B008
            if game is None:
                raise SkipDiffError("there is no game yet: press Begin")
            request, actions = game
            return self._table(request, actions[:-1] if move is None else (*actions, move), progress)

        return moved

    def _table(self, request: Request, actions: tuple[int, ...], progress: Any) -> Choice:
        place = self.workshop.play(request, actions, meter(progress, "deciding"))
        over = place.level == 0
        fine = self.workshop.fine_steps(request.model, request.coarse_steps)
        text = (
            f"Level {place.level} of {fine}, {place.evaluations} network call"
            f"{'s' * (place.evaluations != 1)} so far."
        )
        if over:
            text = f"All decisions are taken, after {place.evaluations} network calls. "
            calls = self.workshop.optimum_calls(request)
            text += f"Comparing takes up to {calls} calls, about "
            text += f"{duration(self.workshop.seconds(request, calls))}; known latents are looked up."
        return (
            (request, actions), message(text), film_strip(place.frames, not over),
            place.picture, gr.Button(interactive=not over), gr.Button(interactive=not over),
            gr.Button(interactive=bool(actions)), gr.Button(interactive=over), "",
        )  # fmt: skip

    def _compare(
        self, game: tuple[Request, tuple[int, ...]] | None, metric: str, progress: Any = gr.Progress()  # noqa: B008
    ) -> str:  # fmt: skip
        if game is None:
            raise SkipDiffError("there is no game yet: press Begin")
        try:
            lines = self.workshop.compare(*game, metric, meter(progress, "every outcome"))
        except SkipDiffError as error:  # no original, or too small a picture: this must stay visible
            return message(str(error), bad=True)
        return comparison_table(lines, metric)
