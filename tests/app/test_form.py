"""Form of the studio: its components have the names, ranges, defaults and meanings of the pipeline's options."""

import dataclasses

import gradio as gr
import pytest
from pydantic import ValidationError

from mimicmotion_jax import InputError
from mimicmotion_jax.app import form
from mimicmotion_jax.checkpoint import read_sampling
from mimicmotion_jax.cli.demo import WEIGHTS
from mimicmotion_jax.config import meanings
from mimicmotion_jax.inference.options import PipelineOptions, load_options


def components(defaults):
    with gr.Blocks():
        return {name: form.component(name, defaults) for name in form.OPTIONS}


def test_the_form_has_every_option_but_files_and_arrays():
    left_out = {field.name for field in dataclasses.fields(PipelineOptions)} - set(form.OPTIONS)
    assert left_out == {"person_model", "pose_model", "motion_kind", "preset"}
    assert len(set(form.OPTIONS)) == len(form.OPTIONS)
    assert set(form.PREFLIGHT) <= set(form.OPTIONS)


@pytest.mark.parametrize("defaults", [{}, read_sampling(WEIGHTS)], ids=["full", "small"])
def test_an_untouched_form_gives_the_checkpoints_options(defaults):
    made = components(defaults)
    options = form.to_options([component.value for component in made.values()], defaults)
    assert options == load_options(WEIGHTS if defaults else None, cls=PipelineOptions)


def test_labels_and_meanings_are_those_of_the_code():
    explained = meanings(PipelineOptions)
    for name, component in components({}).items():
        assert component.label == name
        assert component.info == explained[name].replace("null", "empty")
        assert len(component.info) > 10


def test_numbers_have_the_ranges_of_their_options():
    """The least and largest value are taken; those beyond are refused by the options themselves."""
    numbers = {name: made for name, made in components({}).items() if isinstance(made, gr.Number)}
    assert {"num_inference_steps", "guidance_scale", "resolution", "motion_bucket_id", "stride"} <= set(numbers)
    for name, component in numbers.items():
        for limit, step in ((component.minimum, -1), (component.maximum, 1)):
            if limit is None:
                continue
            many = {"num_inference_steps": 1000}  # as many as the widest reuse of features needs
            PipelineOptions(**many | {name: limit})
            with pytest.raises(ValidationError):
                PipelineOptions(**many | {name: limit + step})


def test_words_are_those_of_their_options():
    made = components({})
    assert [value for _, value in made["align"].choices] == ["none", "affine", "limb"]
    assert [value for _, value in made["person"].choices][:3] == ["largest", "central", "0"]
    assert [value for _, value in made["fusion"].choices] == ["official", "progressive", "uniform", "none"]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("seed", "18446744073709551615", 2**64 - 1),
        ("seed", 7, 7),
        ("person", "2", 2),
        ("person", "central", "central"),
        ("scenes", "1", 1),
        ("motion_size", "[1920, 1080]", (1920, 1080)),
        ("num_frames", "12", 12),
        ("num_frames", "", None),
        ("align", "none", "none"),
        ("fusion", "none", "none"),
    ],
)
def test_values_become_those_of_the_options(name, value, expected):
    assert getattr(form.to_options([value], {}, [name]), name) == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_frames", "many", "num_frames"),
        ("num_frames", "0", "num_frames.*greater than or equal to 1"),
        ("seed", "-1", "seed"),
        ("person", "nobody", "person"),
        ("motion_size", "[1,", "motion_size cannot be"),
        ("height", "100", "height and width belong together"),
    ],
)
def test_a_wrong_value_is_named(name, value, message):
    with pytest.raises(InputError, match=message):
        form.to_options([value], {}, [name])
