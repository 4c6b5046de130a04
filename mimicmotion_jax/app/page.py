"""Page of the studio: what happens when its components are used."""

import secrets
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from mimicmotion_jax.app import form, notices
from mimicmotion_jax.app.endpoints import add_endpoints
from mimicmotion_jax.app.generation import Step, StoppedError
from mimicmotion_jax.app.layout import Layout
from mimicmotion_jax.app.preflight import Preflight
from mimicmotion_jax.app.preflight_pictures import people_picture, person_at
from mimicmotion_jax.app.studio import Example, Made, Studio
from mimicmotion_jax.runtime.errors import InputError

_MAX_SEED = 2**32
_SEED = form.OPTIONS.index("seed")
_QUIET: dict[str, Any] = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}


class StudioPage:
    """Actions of the page's components.

    Args:
        studio: what they act on.
        examples: inputs to begin with.
        about: sentence about the checkpoint.

    Attributes:
        blocks: the page, to be launched.
    """

    def __init__(self, studio: Studio, examples: Sequence[Example] = (), about: str = ""):
        self._studio = studio
        with gr.Blocks(title="MimicMotion studio", analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as blocks:
            self._layout = layout = Layout(studio.defaults, examples, about)
            self._form = [*layout.inputs, *(layout.options[name] for name in form.OPTIONS)]
            self._looked = gr.State()  # inputs and preflight on the page
            self._shown = gr.State()  # key of the result on the page
            self._made = gr.BrowserState([], storage_key="mimicmotion-results")  # keys of all results of this browser
            self._connect_examples()
            self._connect_preflight()
            self._connect_generation()
            self._connect_results(blocks)
            add_endpoints(studio, layout)
        self.blocks = blocks

    def _connect_examples(self) -> None:
        layout = self._layout
        for button, files in layout.examples:
            chosen = (*files, gr.update(open=True))
            button.click(lambda chosen=chosen: chosen, None, [*layout.inputs, layout.keypoints_box], **_QUIET)

    def _connect_preflight(self) -> None:
        layout = self._layout
        triggers = [component.change for component in layout.inputs]
        for name in form.PREFLIGHT:
            component = layout.options[name]
            is_typed = isinstance(component, gr.Number | gr.Textbox)
            triggers.append(component.blur if is_typed else component.change)
            if is_typed:
                triggers.append(component.submit)
        gr.on(
            triggers, self._show_preflight, [self._looked, *self._form],
            [layout.preflight, layout.people, layout.save_check, self._looked],
            trigger_mode="always_last", concurrency_limit=1, concurrency_id="preflight",
            show_progress="minimal", show_progress_on=layout.preflight, api_visibility="private",
        )  # fmt: skip
        layout.people.select(_choose_person, self._looked, layout.options["person"], **_QUIET)

    def _connect_generation(self) -> None:
        layout = self._layout
        shared: dict[str, Any] = {
            "outputs": [layout.status, layout.preview, *self._result_components(), self._made, layout.gallery],
            "concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private",
        }  # fmt: skip
        layout.generate.click(self._generate, [self._made, *self._form], **shared)
        layout.again.click(self._generate_again, [self._made, self._shown], **shared)
        layout.stop.click(self._stop, **_QUIET)

    def _connect_results(self, blocks: gr.Blocks) -> None:
        layout = self._layout
        layout.gallery.select(self._show_made, self._made, self._result_components(), **_QUIET)
        layout.recall.click(self._recall, self._shown, self._form, **_QUIET)
        blocks.load(self._restore, self._made, [self._made, layout.gallery], **_QUIET)

    def _result_components(self) -> list[Any]:
        """Components of a result, in the order of `_show`."""
        layout = self._layout
        return [
            *(layout.result, layout.comparison, layout.download, layout.actions, layout.settings_box, layout.settings),
            self._shown,
        ]

    def _show_preflight(self, looked: tuple[Any, Preflight] | None, *arguments: Any) -> Iterator[tuple[Any, ...]]:
        inputs, values = arguments[:4], arguments[4:]
        hidden = gr.update(visible=False)
        if inputs[0] is None or (inputs[1] is None and inputs[2] is None):
            missing = "a picture" if inputs[0] is None else "a motion"
            text = f"Give {missing} as well" if any(inputs) else "Give a picture and a motion"
            yield notices.hint(text), hidden, hidden, None
            return
        if looked is None or looked[0] != inputs:
            step = Step("looking at the picture and the motion")
            yield notices.progress(step), hidden, hidden, None
        try:
            preflight, page = self._studio.look(inputs, values)
        except InputError as error:
            yield notices.alert(str(error)), hidden, hidden, None
            return
        several = len(preflight.people) > 1
        people = gr.update(value=people_picture(preflight), visible=True) if several else hidden
        file = gr.update(value=str(self._studio.write_page(page)), visible=True)
        yield notices.frame(page), people, file, (inputs, preflight)

    def _generate(self, request: gr.Request, keys: list[str], *arguments: Any) -> Iterator[tuple[Any, ...]]:
        hidden = gr.update(visible=False)
        same = [gr.skip()] * (len(self._result_components()) + 2)
        try:
            for update in self._studio.run(arguments[:4], arguments[4:], request.session_hash or ""):
                if isinstance(update, Step):
                    preview = gr.skip()
                    if update.preview is not None:
                        preview = gr.update(value=_enlarged(update.preview), visible=True)
                    yield notices.progress(update), preview, *same
                else:
                    done = notices.note(f"Done in {update.result.seconds:.0f} s.")
                    keys = [*keys, update.key]
                    yield done, hidden, *_show(update), *self._list(keys)
        except StoppedError:
            yield notices.note("Stopped."), hidden, *same
        except InputError as error:
            yield notices.alert(str(error)), hidden, *same

    def _generate_again(self, request: gr.Request, keys: list[str], shown: str | None) -> Iterator[tuple[Any, ...]]:
        made = self._studio.made(shown)
        assert made is not None, "the button appears with a result"
        values = [*made.values]
        values[_SEED] = str(secrets.randbelow(_MAX_SEED))
        yield from self._generate(request, keys, *made.inputs, *values)

    def _stop(self, request: gr.Request) -> None:
        self._studio.stop(request.session_hash or "")

    def _show_made(self, keys: list[str], event: gr.SelectData) -> tuple[Any, ...]:
        made = self._studio.made(keys[event.index])
        assert made is not None, "the gallery shows what is there"
        return _show(made)

    def _recall(self, shown: str | None) -> tuple[Any, ...]:
        made = self._studio.made(shown)
        assert made is not None, "the button appears with a result"
        return (*made.inputs, *made.values)

    def _restore(self, keys: list[str]) -> tuple[Any, ...]:
        """Bring the gallery back when the page is loaded again; the browser may know results of an earlier server."""
        return self._list([key for key in keys if self._studio.made(key)])

    def _list(self, keys: list[str]) -> tuple[list[str], Any]:
        pictures = []
        for made in filter(None, map(self._studio.made, keys)):
            options = made.result.prepared.options
            pictures.append((str(made.result.poster), f"seed {options.seed}, {options.align}"))
        return keys, gr.update(value=pictures, visible=bool(pictures))


def _show(made: Made) -> tuple[Any, ...]:
    video, comparison = str(made.result.video), str(made.result.comparison)
    shown = gr.update(visible=True)
    return (
        gr.update(value=video, visible=True),
        gr.update(value=comparison, visible=True),
        video,
        shown,
        shown,
        made.result.settings,
        made.key,
    )


def _choose_person(looked: tuple[Any, Preflight] | None, event: gr.SelectData) -> Any:
    if looked is None:
        return gr.skip()
    preflight = looked[1]
    height, width = people_picture(preflight).shape[:2]
    number = person_at(preflight, event.index[0] / width, event.index[1] / height)
    return gr.skip() if number is None else str(number)


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    scale = max(1, -(-320 // pixels.shape[0]))
    size = (pixels.shape[1] * scale, pixels.shape[0] * scale)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
