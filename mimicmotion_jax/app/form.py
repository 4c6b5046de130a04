"""Options of the pipeline as components of a form: names, ranges, defaults and meanings are read from the code."""

import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

import gradio as gr
import yaml
from gradio.components import Component

from mimicmotion_jax.config import build_config, meanings
from mimicmotion_jax.inference.options import PipelineOptions, merge_defaults
from mimicmotion_jax.runtime.errors import InputError

MAIN = ("align", "person", "num_inference_steps", "guidance_scale", "seed", "num_frames")
MORE = {
    "Motion": (
        *("start", "stride", "scenes", "reference_person", "smooth", "gaps", "detector", "tolerate_truncation"),
        *("motion_fps", "motion_size"),
    ),
    "Size and drawing": ("resolution", "aspect", "height", "width", "confidence", "antialias", "stroke_width"),
    "Sampling": (
        *("fusion", "window_size", "window_overlap", "group_size", "memory", "periodic_noise", "decode_chunk_size"),
        *("decode_overlap", "fps", "motion_bucket_id", "noise_aug_strength", "sampler", "schedule"),
        *("min_guidance_scale", "max_guidance_scale", "guidance_interval"),
        *("cache_interval", "cache_depth"),
        *("pose_strength", "pose_start", "pose_end", "image_strength"),
    ),
}
OPTIONS = (*MAIN, *(name for names in MORE.values() for name in names))
"""Options in the form: all of `PipelineOptions` but files of the detector, `motion_kind`, which is for arrays, and
`preset`, which yields to every value in the form."""

PREFLIGHT = (
    *("person", "num_inference_steps", "guidance_scale", "num_frames", "align", *MORE["Motion"]),
    *("resolution", "aspect", "height", "width", "window_size", "window_overlap", "memory", "decode_chunk_size"),
)
"""Options that a preflight shows."""

_NUMBERS = ("0", "1", "2", "3", "4")


def component(name: str, defaults: Mapping[str, Any]) -> Component:
    """Return the component of an option.

    Args:
        name: field of `PipelineOptions`.
        defaults: a checkpoint's options.
    """
    value = defaults.get(name, getattr(PipelineOptions(), name))
    shared: dict[str, Any] = {
        "label": name,
        "info": meanings(PipelineOptions)[name].replace("null", "empty"),
        "elem_id": f"option-{name}",
    }
    kinds = _kinds(name)
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    number = next((kind for kind in kinds if _base(kind) in (int, float)), None)
    if bool in kinds:
        return gr.Checkbox(value=value, **shared)
    if words and number is not None:
        return gr.Dropdown([*words, *_NUMBERS], value=str(value), allow_custom_value=True, **shared)
    if name == "align":
        return gr.Radio(words, value=value, **shared)
    if words:
        return gr.Dropdown(words, value=value, **shared)
    low, high = limits(name)
    # Gradio sends 0 for an empty number, and a browser's numbers have 53 bits.
    if number is None or name == "seed" or getattr(PipelineOptions(), name) is None:
        hint = "empty" if low is None or high is None else f"empty, or {low:g} to {high:,}"
        return gr.Textbox(value="" if value is None else str(value), placeholder=hint, max_lines=1, **shared)
    precision = 0 if _base(number) is int else None
    return gr.Number(value=value, minimum=low, maximum=high, precision=precision, **shared)


def limits(name: str) -> tuple[float | None, float | None]:
    """Least and largest value of an option that is a number; None where there is no limit, or it is no value itself."""
    low = high = None
    for kind in _kinds(name):
        for field in getattr(kind, "__metadata__", ()):
            for limit in getattr(field, "metadata", ()):
                low = getattr(limit, "ge", low)
                high = getattr(limit, "le", high)
    return low, high


def to_options(values: Sequence[Any], defaults: Mapping[str, Any], names: Sequence[str] = OPTIONS) -> PipelineOptions:
    """Build the options of a form.

    Args:
        values: of the components, in the order of `names`; None and "" take the default.
        defaults: a checkpoint's options.
        names: options.

    Raises:
        InputError: a value that an option cannot have.
    """
    given = {
        name: _parse(name, value)
        for name, value in zip(names, values, strict=True)
        if value is not None and value != ""
    }
    return build_config(PipelineOptions, merge_defaults(dict(defaults), given), "the form")


def _parse(name: str, value: Any) -> Any:
    if not isinstance(value, str) or name in ("align", "aspect"):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError(f"{name} cannot be {value!r}.") from None


def _kinds(name: str) -> list[Any]:
    """Members of the type of an option, its annotations included."""
    hint = typing.get_type_hints(PipelineOptions, include_extras=True)[name]
    parts = get_args(hint) if get_origin(hint) not in (None, Literal, typing.Annotated, tuple) else (hint,)
    return [part for part in parts if part is not type(None)]


def _base(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is typing.Annotated else kind
