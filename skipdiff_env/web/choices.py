"""The choices of visitors: the photograph, and what is done with it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import gradio as gr

from ..chains import NORMAL
from ..errors import SkipDiffError
from ..images import PHOTOGRAPHS
from ..progress import duration
from .offers import FIXED, MAX_PLAN, MAX_SEED, USUAL, WRITTEN
from .pictures import MAX_BYTES, MAX_PIXELS, Upload, bundled, read_upload
from .requests import Request
from .show import message
from .texts import ADVANCED, DECIDED, MAY_SPEND, PLAN
from .widgets import Choice, told
from .workshop import EXAMPLE, Workshop


class Choices:
    """The widgets of all choices, and how they depend on each other.

    Args:
        workshop: the workshop whose offers are shown.
        folder: folder in which uploads are kept.

    Attributes:
        widgets: the widgets whose values :meth:`request` takes.
        look: arguments of an event that updates the text on what is done to the picture and how long it will
            take.
    """

    def __init__(self, workshop: Workshop, folder: Path) -> None:
        self.workshop, self.folder = workshop, folder
        self.picture = gr.State(bundled(EXAMPLE))
        self.photographs = gr.Gallery(
            [(photo.read_small(), photo.name) for photo in PHOTOGRAPHS], show_label=False, columns=4,
            height="auto", allow_preview=False, selected_index=EXAMPLE, object_fit="cover", buttons=[],
            interactive=False, elem_id="photographs",
        )  # fmt: skip
        limits = f"{MAX_BYTES // 2**20} MB and {MAX_PIXELS // 10**6} megapixels"
        self.upload = gr.File(label=f"or your own, up to {limits}", height=110, elem_id="upload")
        self.reference = gr.Radio(
            [("enlarge it as it is", False), ("shrink it first, compare with the original", True)],
            value=True, label="What to do with it", elem_id="reference",
        )  # fmt: skip
        with gr.Row():
            self.run = gr.Button("Enlarge", variant="primary", min_width=120, elem_id="run")
            self.cancel = gr.Button("Cancel", interactive=False, min_width=80, elem_id="cancel")
        self.status = gr.HTML(elem_id="status", min_height=100)
        self.note = gr.HTML(elem_id="note")
        self.estimate = gr.HTML(elem_id="estimate")
        self.effort = gr.Radio(
            workshop.efforts(workshop.models[0]), value=NORMAL, label="Effort", elem_id="effort",
            info=MAY_SPEND,
        )  # fmt: skip
        share: dict[str, Any] = {"minimum": 0, "maximum": 1, "value": 1, "step": 0.05}
        self.clean = gr.Slider(
            **share, label="Clean", info="how much noise and blocking to remove", elem_id="clean"
        )
        self.detail = gr.Slider(
            **share,
            label="Detail",
            info="how much detail to invent; 0 gives the posterior mean",
            elem_id="detail",
        )
        with gr.Accordion("Advanced", open=False, elem_id="advanced"):
            self._advanced()
        self.widgets = [self.picture, self.reference, self.model, self.policy, self.start, self.steps]
        self.widgets += [self.seed, self.clean, self.detail, self.effort, self.plan]
        self.look: dict[str, Any] = {
            "fn": told(self._look), "inputs": [*self.widgets, self.with_chain],
            "outputs": [self.note, self.estimate], "show_progress": "hidden",
        }  # fmt: skip

    def _advanced(self) -> None:
        shop = self.workshop
        model = shop.models[0]
        steps = shop.usual_steps(model)
        gr.Markdown(ADVANCED)
        self.model = gr.Dropdown(shop.models, value=model, label="Model", visible=len(shop.models) > 1)
        self.steps = gr.Dropdown(self._pairs(model), value=steps, label="Step pair (S, F)")
        policies = shop.policies(model, steps)
        self.policy = gr.Dropdown(
            policies, value=policies[0], label="Policy", elem_id="policy",
            # Gradio's page sends each choice twice. When a step pair comes again, with the policy that was
            # there before, that policy may no longer be among the choices.
            allow_custom_value=True,
        )  # fmt: skip
        self.start = gr.Slider(
            1, shop.fine_steps(model, steps), value=shop.usual_start(model, steps), step=1,
            label="Start level k", visible=False, elem_id="start", buttons=[],
        )  # fmt: skip
        self.plan = gr.Textbox(
            PLAN, label="Plan", max_length=MAX_PLAN, visible=False, elem_id="plan",
            info="> is a network call that leads to the next level; | is a skip: the network is told the "
            "next level instead of the one reached; eta is the share of fresh noise",
        )  # fmt: skip
        self.seed = gr.Number(0, label="Noise seed", precision=0, minimum=0, maximum=MAX_SEED)
        self.with_chain = gr.Checkbox(
            False, label="also run the full chain, if there is an original to compare with", elem_id="chain"
        )

    def wire(self) -> None:
        """Connect every choice with what depends on it."""
        see = self.look
        self.photographs.select(told(self._pick), None, [self.picture, self.upload, self.reference]).then(
            **see
        )
        self.upload.upload(
            told(self._take),
            self.upload,
            [self.picture, self.note, self.photographs, self.reference],
            preprocess=False,  # preprocessing would leave an empty file for each upload
        ).success(**see)
        self.upload.clear(_nothing, None, [self.picture, self.note, self.estimate])
        hangs_on: dict[str, Any] = {"show_progress": "hidden"}
        of_policy = [self.start, self.plan, self.effort]
        chosen = [self.model, self.steps, self.policy, self.effort]
        for part, change, outputs in (
            (self.model, self._switch, [self.steps, self.policy, *of_policy]),
            (self.steps, self._other_steps, [self.policy, *of_policy]),
            (self.policy, self._other_policy, of_policy),
        ):
            part.input(told(change), chosen, outputs, **hangs_on).then(**see)
        # Only the visitor's own changes: what a function changes is looked at once, when all of it is there.
        # No change waits for another, because Gradio's page drops the one that waits if the other ends in an
        # error, as for an empty box.
        own = [self.reference, self.effort, self.start, self.plan, self.seed, self.with_chain]
        for event in (*(part.input for part in own), self.clean.change, self.detail.change):
            event(**see, trigger_mode="multiple")

    def request(
        self, picture: Upload | None, reference: bool, model: str, policy: str, start: float, steps: int,
        seed: float | None, *further: Any,
    ) -> Request:  # fmt: skip
        """Return the request that the widgets describe.

        Raises:
            SkipDiffError: if no photograph is chosen, or if the request is not on offer.
        """
        if picture is None:
            raise SkipDiffError("choose a photograph first")
        shop = self.workshop
        task = shop.task(picture, model, reference)
        return shop.request(task, model, policy, int(start), steps, -1 if seed is None else seed, *further)

    def _pairs(self, model: str) -> list[tuple[str, int]]:
        shop = self.workshop
        return [(f"({s}, {shop.fine_steps(model, s)})", s) for s in shop.step_pairs(model)]

    def _pick(self, event: gr.SelectData) -> Choice:
        return bundled(int(event.index)), None, True

    def _take(self, upload: dict[str, Any] | None) -> Choice:
        """Read an upload; for a bad one, an error is shown instead of its size, and no picture is chosen.

        Gradio stores the same file of two visitors in one place, from which the first read removes it.
        """
        file, folder = Path((upload or {}).get("path") or "").resolve(), self.folder.resolve()
        if file == folder or not file.is_relative_to(folder):
            raise SkipDiffError("this file was not uploaded here: upload it")
        try:
            return read_upload(file, file.name), "", gr.Gallery(selected_index=None), False
        except SkipDiffError as error:
            return None, message(str(error), bad=True), gr.Gallery(selected_index=None), False
        finally:
            with contextlib.suppress(OSError):  # the folder belongs to this upload, unless another shares it
                file.unlink(missing_ok=True)
                file.parent.rmdir()

    def _switch(self, model: str, steps: int, policy: str, effort: str) -> Choice:
        """Update the choices for another model, with its usual steps."""
        steps = self.workshop.usual_steps(model)
        others = self._other_steps(model, steps, "", effort)
        return gr.Dropdown(self._pairs(model), value=steps), *others

    def _other_steps(self, model: str, steps: int, policy: str, effort: str) -> Choice:
        """Update the choices for another step pair; the policy is kept if possible."""
        policies = self.workshop.policies(model, steps)
        policy = policy if policy in policies else policies[0]
        return gr.Dropdown(policies, value=policy), *self._other_policy(model, steps, policy, effort)

    def _other_policy(self, model: str, steps: int, policy: str, effort: str) -> Choice:
        """Update the choices for another policy."""
        shop = self.workshop
        top, usual = shop.fine_steps(model, steps), shop.usual_start(model, steps)
        efforts = shop.efforts(model)
        effort = effort if effort in efforts else NORMAL
        free = policy == USUAL
        return (
            gr.Slider(maximum=top, value=usual, visible=policy == FIXED),
            gr.Textbox(visible=policy == WRITTEN),
            gr.Radio(efforts, value=effort, interactive=free, info=MAY_SPEND if free else DECIDED),
        )

    def _look(self, *choice: Any) -> Choice:
        """Say what is done to the picture, and how long it will take."""
        *settings, with_chain = choice
        if settings[0] is None:
            return gr.skip(), ""
        shop = self.workshop
        try:
            request = self.request(*settings)
            text = self._time(request, with_chain)
        except SkipDiffError as error:
            return message(str(error), bad=True), ""
        notes = [request.task.note, *request.notes, *shop.notices(request)]
        return message("; ".join(filter(None, notes))), message(text + "One job runs at a time; others wait.")

    def _time(self, request: Request, with_chain: bool) -> str:
        shop = self.workshop
        if request.task.whole:
            work, seconds = shop.work(request), shop.seconds_whole(request)
            tiles = f"{work.tiles} tile{'s' * (work.tiles != 1)}"
            return (
                f"About {duration(seconds)}: {work.calls} network call{'s' * (work.calls != 1)} on {tiles}. "
            )
        calls = shop.calls(request)
        text = f"About {duration(shop.seconds(request))}: {calls} network call{'s' * (calls != 1)}. "
        if with_chain:
            full = shop.levels(request.model)
            text += f"The full chain: {full} calls, about {duration(shop.seconds(request, full))}. "
        return text


def _nothing() -> Choice:
    return None, message("Choose one of the photographs, or upload your own."), ""
