"""Endpoints of the studio for programs: `/preflight` and `/generate`, with arguments named after the options."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from mimicmotion_jax.app import form
from mimicmotion_jax.app.generation import StoppedError
from mimicmotion_jax.app.layout import Layout
from mimicmotion_jax.app.preflight import summarise
from mimicmotion_jax.app.studio import Made, Studio
from mimicmotion_jax.runtime.errors import InputError


def add_endpoints(studio: Studio, layout: Layout) -> None:
    """Add both endpoints to the page that is being built; nothing of them is visible there."""

    def preflight(request: gr.Request, *arguments: Any) -> tuple[str, dict[str, Any]]:
        found, page = studio.look(arguments[:4], arguments[4:])
        return str(studio.write_page(page)), summarise(found)

    def generate(request: gr.Request, *arguments: Any) -> tuple[str, dict[str, Any]]:
        *_, made = studio.run(arguments[:4], arguments[4:], request.session_hash or "")
        assert isinstance(made, Made)
        return str(made.result.video), made.result.settings

    inputs = [*layout.inputs, *(layout.options[name] for name in form.OPTIONS)]
    names = ["image", "motion", "keypoints", "image_pose", *form.OPTIONS]
    # The detector of preflights does one at a time, here and on the page; generations have a queue of their own.
    for action, limit in ((preflight, 1), (generate, None)):
        gr.Button(visible=False).click(
            _with_parameters(action, names, inputs), inputs, [gr.File(visible=False), gr.JSON(visible=False)],
            api_name=action.__name__, concurrency_limit=limit, concurrency_id=action.__name__,
        )  # fmt: skip


def _with_parameters(
    action: Callable[..., Any], names: Sequence[str], components: Sequence[Component]
) -> Callable[..., Any]:
    """Give an action the names by which clients pass arguments; all but the image may be left out."""

    def named(request: gr.Request, *arguments: Any) -> Any:
        try:
            return action(request, *arguments)
        except StoppedError:
            raise gr.Error("the generation was stopped.", print_exception=False) from None
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from None

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
