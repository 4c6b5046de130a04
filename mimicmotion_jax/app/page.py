"""Page of the studio: its components, and what happens when they are used."""

import html
import inspect
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.components import Component
from PIL import Image

from mimicmotion_jax.app import form
from mimicmotion_jax.app.generation import Result, Step, StoppedError
from mimicmotion_jax.app.preflight import Preflight, summarise
from mimicmotion_jax.app.preflight_page import people_picture, person_at
from mimicmotion_jax.app.studio import Example, Studio
from mimicmotion_jax.pages.render import render
from mimicmotion_jax.pose.files import KEYPOINT_SUFFIXES
from mimicmotion_jax.runtime.errors import InputError

RESPONSIBLE_USE = "https://github.com/mimicmotion-jax/mimicmotion_jax/blob/main/RESPONSIBLE_USE.md"
_MAX_SEED = 2**32


class StudioPage:
    """Components of the page and what they do.

    Args:
        studio: what they act on.
        examples: inputs to begin with.
        about: sentence about the checkpoint.

    Attributes:
        blocks: the page, to be launched.
    """

    def __init__(self, studio: Studio, examples: Sequence[Example] = (), about: str = ""):
        self._studio, defaults = studio, studio.defaults
        with gr.Blocks(title="MimicMotion studio", analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as blocks:
            gr.HTML(render("studio_header.html", about=about, responsible_use=RESPONSIBLE_USE), elem_id="header")
            with gr.Row():
                with gr.Column(scale=2, min_width=320):
                    self._build_inputs(examples)
                    self._build_options(defaults)
                with gr.Column(scale=3, min_width=320):
                    self._build_preflight()
            self._build_results()
            self._inputs = [self.image, self.video, self.keypoints, self.image_pose]
            self._values = [self.options[name] for name in form.OPTIONS]
            self._connect_preflight()
            self._connect_generation()
            self._connect_api()
        self.blocks = blocks

    def _build_inputs(self, examples: Sequence[Example]) -> None:
        gr.Markdown("## 1. Picture and motion")
        with gr.Row():
            self.image = gr.Image(
                label="Picture of the person", sources=["upload", "webcam", "clipboard"], type="filepath",
                image_mode=None, height=280, min_width=150, buttons=[], elem_id="image",
            )  # fmt: skip
            # The file as it is: Gradio reads fewer kinds of pictures than we do, and says less of what is wrong.
            self.image.preprocess = lambda payload: None if payload is None else payload.path
            self.video = gr.Video(
                label="Motion", sources=["upload", "webcam"], height=280, min_width=150, elem_id="motion",
                webcam_options=gr.WebcamOptions(mirror=False), buttons=[],
            )  # fmt: skip
        with gr.Accordion("Keypoints instead of video or detection", open=False):
            types: list[str] = [*KEYPOINT_SUFFIXES]
            self.keypoints = gr.File(label="Keypoints of the motion", file_types=types, height=90, elem_id="keypoints")
            self.image_pose = gr.File(label="Keypoints of the picture", file_types=types, height=90, elem_id="pose")
        if examples:
            gr.Markdown("No files at hand? Try an example:", elem_classes="quiet")
            with gr.Row():
                for number, example in enumerate(examples):
                    button = gr.Button(
                        example.name, icon=example.image, size="sm", min_width=120, elem_id=f"example-{number}"
                    )
                    files = (str(example.image), None, str(example.keypoints), str(example.image_pose))
                    button.click(
                        lambda files=files: files, None, [self.image, self.video, self.keypoints, self.image_pose],
                        api_visibility="private", queue=False, show_progress="hidden",
                    )  # fmt: skip

    def _build_options(self, defaults: Any) -> None:
        self.options: dict[str, Any] = {}
        gr.Markdown("## 2. Options")
        self.options["align"] = form.component("align", defaults)
        with gr.Row():
            for name in form.MAIN[1:]:
                with gr.Column(min_width=150):
                    self.options[name] = form.component(name, defaults)
        for title, names in form.MORE.items():
            with gr.Accordion(title, open=False), gr.Row():
                for name in names:
                    with gr.Column(min_width=150):
                        self.options[name] = form.component(name, defaults)

    def _build_preflight(self) -> None:
        gr.Markdown("## 3. What the model will be given")
        self.preflight = gr.HTML(_hint("Give a picture and a motion"), elem_id="preflight")
        self.people = gr.Image(
            label="Click on the person to follow (or set the option person)", visible=False, interactive=False,
            buttons=[], elem_id="people", height=300, alt_text="people in numbered boxes",
        )  # fmt: skip
        self.page = gr.DownloadButton("Save this check as a page", visible=False, size="sm", elem_id="save-check")
        self.found = gr.State()

    def _build_results(self) -> None:
        gr.Markdown("## 4. Result")
        with gr.Row():
            self.generate = gr.Button("Generate", variant="primary", scale=3, elem_id="generate")
            self.stop = gr.Button("Stop", scale=1, elem_id="stop")
        self.status = gr.HTML("", elem_id="status")
        with gr.Row():
            self.preview = gr.Image(
                label="Preview of a step", visible=False, interactive=False, buttons=[], height=320, min_width=200,
                elem_id="preview",
            )  # fmt: skip
            self.result = gr.Video(
                label="Result, with the motion's sound", interactive=False, buttons=["download"], min_width=240,
                elem_id="result", loop=True, autoplay=True, visible=False,
            )  # fmt: skip
            self.comparison = gr.Video(
                label="Reference, motion, result", interactive=False, buttons=["download"], scale=2,
                min_width=300, elem_id="comparison", loop=True, autoplay=True, visible=False,
            )  # fmt: skip
        with gr.Row():
            self.again = gr.Button("Again with another seed", visible=False, elem_id="again")
            self.download = gr.DownloadButton("Download the video", visible=False, elem_id="download")
        with gr.Accordion("Settings, as the file records them", open=False, visible=False, elem_id="settings") as box:
            self.settings = gr.JSON(show_label=False)
        self.settings_box = box
        self.gallery = gr.Gallery(
            label="This session's results", columns=6, height=230, fit_columns=False, allow_preview=False,
            visible=False, buttons=[], elem_id="gallery", object_fit="contain", interactive=False,
        )  # fmt: skip
        self.results = gr.State([])

    def _connect_preflight(self) -> None:
        triggers = [component.change for component in self._inputs]
        for name in (*form.PREFLIGHT, "num_inference_steps", "guidance_scale"):
            component = self.options[name]
            is_typed = isinstance(component, gr.Number | gr.Textbox)
            triggers.append(component.blur if is_typed else component.change)
            if is_typed:
                triggers.append(component.submit)
        gr.on(
            triggers, self._show_preflight, [*self._inputs, *self._values],
            [self.preflight, self.people, self.page, self.found],
            trigger_mode="always_last", concurrency_limit=1, concurrency_id="preflight",
            show_progress="minimal", show_progress_on=self.preflight, api_visibility="private",
        )  # fmt: skip
        self.people.select(
            _choose_person,
            self.found,
            self.options["person"],
            api_visibility="private",
            queue=False,
            show_progress="hidden",
        )

    def _connect_generation(self) -> None:
        outputs = [
            *(self.status, self.preview, self.result, self.comparison, self.download, self.again, self.settings_box),
            *(self.settings, self.results, self.gallery),
        ]
        shared: dict[str, Any] = {
            "fn": self._generate, "inputs": [self.results, *self._inputs, *self._values], "outputs": outputs,
            "concurrency_limit": 1, "concurrency_id": "generation", "show_progress": "hidden",
            "api_visibility": "private",
        }  # fmt: skip
        self.generate.click(**shared)
        another = self.again.click(_draw_seed, None, self.options["seed"], api_visibility="private", queue=False)
        another.then(**shared)
        self.stop.click(self._stop, None, self.status, api_visibility="private", queue=False, show_progress="hidden")
        self.gallery.select(
            self._show_result, self.results, [self.result, self.comparison, self.download, self.settings],
            api_visibility="private", show_progress="hidden",
        )  # fmt: skip

    def _connect_api(self) -> None:
        page, findings = gr.File(visible=False), gr.JSON(visible=False)
        video, settings = gr.File(visible=False), gr.JSON(visible=False)
        names = ["image", "motion", "keypoints", "image_pose", *form.OPTIONS]
        inputs = [*self._inputs, *self._values]
        for name, action, outputs in (
            ("preflight", self._api_preflight, [page, findings]),
            ("generate", self._api_generate, [video, settings]),
        ):
            gr.Button(visible=False).click(
                _with_parameters(action, names, inputs), inputs, outputs, api_name=name, concurrency_limit=1,
                concurrency_id="preflight" if name == "preflight" else "generation",
            )  # fmt: skip

    def _show_preflight(self, *arguments: Any) -> tuple[Any, ...]:
        inputs, values = arguments[:4], arguments[4:]
        hidden = gr.update(visible=False)
        if inputs[0] is None or (inputs[1] is None and inputs[2] is None):
            missing = "a picture" if inputs[0] is None else "a motion"
            nothing = not any(inputs)
            text = "Give a picture and a motion" if nothing else f"Give {missing} as well"
            return _hint(text), hidden, hidden, None
        try:
            preflight, page = self._studio.look(inputs, values)
        except InputError as error:
            return _alert(str(error)), hidden, hidden, None
        several = len(preflight.people) > 1
        people = gr.update(value=people_picture(preflight), visible=True) if several else hidden
        return _frame(page), people, gr.update(value=str(self._write_page(page)), visible=True), preflight

    def _write_page(self, page: str) -> Path:
        folder = self._studio.new_folder()
        folder.mkdir(parents=True)
        (folder / "check.html").write_text(page)
        return folder / "check.html"

    def _generate(self, request: gr.Request, results: list[Result], *arguments: Any) -> Iterator[tuple[Any, ...]]:
        same = gr.skip()
        session = request.session_hash or ""
        try:
            for update in self._studio.run(arguments[:4], arguments[4:], session):
                if isinstance(update, Step):
                    preview = same
                    if update.preview is not None:
                        preview = gr.update(value=_enlarged(update.preview), visible=True)
                    yield _progress(update), preview, *[same] * 8
                else:
                    results = [*results, update]
                    done = f"Done in {update.seconds:.0f} s."
                    hidden = gr.update(visible=False)
                    shown = gr.update(visible=True)
                    yield (
                        _note(done),
                        hidden,
                        *_shown(update)[:3],
                        shown,
                        shown,
                        update.settings,
                        results,
                        _thumbnails(results),
                    )
        except StoppedError:
            yield _note("Stopped."), gr.update(visible=False), *[same] * 8
        except InputError as error:
            yield _alert(str(error)), gr.update(visible=False), *[same] * 8

    def _stop(self, request: gr.Request) -> Any:
        self._studio.stop(request.session_hash or "")
        return gr.skip()

    def _show_result(self, results: list[Result], event: gr.SelectData) -> tuple[Any, ...]:
        return _shown(results[event.index])

    def _api_preflight(self, request: gr.Request, *arguments: Any) -> tuple[str, dict[str, Any]]:
        del request
        try:
            preflight, page = self._studio.look(arguments[:4], arguments[4:])
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return str(self._write_page(page)), summarise(preflight)

    def _api_generate(self, request: gr.Request, *arguments: Any) -> tuple[str, dict[str, Any]]:
        try:
            *_, result = self._studio.run(arguments[:4], arguments[4:], request.session_hash or "")
            assert isinstance(result, Result)
        except StoppedError:
            raise gr.Error("the generation was stopped.", print_exception=False) from None
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return str(result.video), result.settings


def _with_parameters(
    action: Callable[..., Any], names: Sequence[str], components: Sequence[Component]
) -> Callable[..., Any]:
    """Give an action the names by which clients pass arguments; all but the image may be left out."""

    def named(request: gr.Request, *arguments: Any) -> Any:
        return action(request, *arguments)

    kind, empty = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
    vars(named)["__signature__"] = inspect.Signature(
        [
            inspect.Parameter("request", kind),
            *(
                inspect.Parameter(name, kind, default=empty if name == "image" else getattr(component, "value", None))
                for name, component in zip(names, components, strict=True)
            ),
        ]
    )
    return named


def _draw_seed() -> str:
    return str(secrets.randbelow(_MAX_SEED))


def _choose_person(preflight: Preflight | None, event: gr.SelectData) -> Any:
    if preflight is None:
        return gr.skip()
    height, width = people_picture(preflight).shape[:2]
    number = person_at(preflight, event.index[0] / width, event.index[1] / height)
    return gr.skip() if number is None else str(number)


def _shown(result: Result) -> tuple[Any, ...]:
    video, comparison = str(result.video), str(result.comparison)
    return (
        gr.update(value=video, visible=True),
        gr.update(value=comparison, visible=True),
        gr.update(value=video, visible=True),
        result.settings,
    )


def _thumbnails(results: Sequence[Result]) -> Any:
    captions = [f"seed {result.prepared.options.seed}, {result.prepared.options.align}" for result in results]
    pictures = [(str(result.poster), caption) for result, caption in zip(results, captions, strict=True)]
    return gr.update(value=pictures, visible=True)


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    scale = max(1, -(-320 // pixels.shape[0]))
    size = (pixels.shape[1] * scale, pixels.shape[0] * scale)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def _frame(page: str) -> str:
    """Show a page in a frame of its own, as high as its content; its policy lets no scripts run."""
    fit = (
        "const f=this,m=f.contentDocument.querySelector('main');"
        "new ResizeObserver(()=>{f.style.height=m.offsetHeight+'px'}).observe(m)"
    )
    return (
        f'<iframe title="Preflight" class="preflight" srcdoc="{html.escape(page)}" '
        f'onload="{html.escape(fit)}"></iframe>'
    )


def _progress(step: Step) -> str:
    count = f" {step.done} of {step.total}" if step.total > 1 else ""
    bar = f'<progress max="{step.total}" value="{step.done}"></progress>' if step.total > 1 else "<progress></progress>"
    return f'<div class="note" role="status">{html.escape(step.stage)}{count} {bar}</div>'


def _hint(text: str) -> str:
    return f'<p class="hint">{html.escape(text)}: what the model will see appears here at once.</p>'


def _note(text: str) -> str:
    return f'<div class="note" role="status">{html.escape(text)}</div>'


def _alert(text: str) -> str:
    return f'<div class="alert" role="alert">{html.escape(text)}</div>'
