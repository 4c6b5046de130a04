"""Configuration: mistakes are one short sentence with the key, what is allowed and what was given; --help explains."""

import re

import pytest
from pydantic import ValidationError

from mimicmotion_jax import InputError
from mimicmotion_jax.config import config_dataclass, describe, load_config
from mimicmotion_jax.data.prepare import PrepareConfig
from mimicmotion_jax.evaluation.config import EvaluateConfig
from mimicmotion_jax.inference.options import GenerateConfig
from mimicmotion_jax.training.autoencoder.config import VAETrainConfig
from mimicmotion_jax.training.config import TrainConfig

CASES = [
    (GenerateConfig, "person=abc", ["person", "'largest' or 'central'", "integer", "not 'abc'"]),
    (GenerateConfig, "person=-2", ["person", "'largest' or 'central'", "greater than or equal to 0", "not -2"]),
    (GenerateConfig, "sed=3", ["unknown key 'sed'", "'seed'"]),
    (TrainConfig, "model=large", ["model: ", "'full' or 'tiny'", "not 'large'"]),
    (TrainConfig, "model.vae.layer_per_block=1", ["'model.vae.layer_per_block'", "'model.vae.layers_per_block'"]),
    (TrainConfig, "model.window_size=1", ["model.window_size: ", "greater than or equal to 2", "not 1"]),
    (TrainConfig, "mesh=3", ["mesh: ", "dictionary", "not 3"]),
    (TrainConfig, "mesh.fsdp2=3", ["unknown key 'mesh.fsdp2'", "'mesh.fsdp'"]),
    (TrainConfig, "mesh.zzz=3", ["unknown key 'mesh.zzz'", "mesh.data, mesh.fsdp, mesh.frames"]),
    (TrainConfig, "learning_rate=1", ["unknown key 'learning_rate'", "'optimizer.learning_rate'"]),
    (TrainConfig, "data.interval=[3,1]", ["data: interval (3, 1) is empty"]),
    (TrainConfig, "trainable=[]", ["trainable names no parameter", "lora.rank=16"]),
    (TrainConfig, "optimizer.weight_decay=.inf", ["optimizer.weight_decay: ", "finite number", "not inf"]),
    (PrepareConfig, "max_seconds=.inf", ["max_seconds: ", "finite number", "not inf"]),
    (PrepareConfig, "max_seconds=1.0e+308", ["max_seconds: ", "less than or equal to 1000000", "not 1e+308"]),
    (PrepareConfig, "size=[64,0]", ["size.1: ", "greater than or equal to 1", "not 0"]),
]


@pytest.mark.parametrize(("cls", "option", "parts"), CASES)
def test_mistakes(cls, option, parts):
    with pytest.raises(InputError) as caught:
        load_config(cls, overrides=[option])
    message = str(caught.value)
    assert message.count("mistake") == 1
    assert all(part in message for part in parts), message


def test_long_values_and_lists_are_shortened():
    for option in ("model.unet.bogus=1", "seed=" + "[" * 5000, f"model={{a: {list(range(999))}}}", "steps=2026-99-99"):
        with pytest.raises(InputError) as caught:
            load_config(TrainConfig, overrides=[option])
        assert len(str(caught.value)) < 1000, option
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed: " + b"[" * 5000, "not valid YAML"),
        (b"a: 1\nb: [1\n", "line 3"),
        (b"seed: 2026-99-99", "not valid YAML"),
        (b"seed: !!timestamp x", "not valid YAML"),
        (b"seed: !!bool x", "not valid YAML"),
        (b"seed: " + b"9" * 5000, "not valid YAML"),
        (b"seed: \xff", "not text"),
        (b"- 1", "no 'key: value' lines"),
        (b"1: 2", "no 'key: value' lines"),
    ],
)
def test_bad_files(content, message, tmp_path):
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_config(TrainConfig, tmp_path / "x.yaml")


@pytest.mark.parametrize(("name", "message"), [("missing.yaml", "no configuration file"), (".", "cannot be read")])
def test_files_that_cannot_be_read(name, message, tmp_path):
    with pytest.raises(InputError, match=message):
        load_config(TrainConfig, tmp_path / name)


@config_dataclass
class Part:
    depth: int = 3
    """Number of layers."""


@config_dataclass
class Whole(Part):
    names: tuple[str, ...] = ("a very long name", "another very long name")
    """Regular expressions over names, explained in so many words that they do not fit into one line of the help, which
    is 120 characters wide."""
    part: Part = Part(depth=4)
    unexplained: str | None = None


def test_options_are_listed_with_defaults_and_meanings():
    """Also those that a class inherits, and those of a section with the defaults of the whole."""
    assert describe(Whole).splitlines() == [
        "  depth=3                       Number of layers.",
        "  names=[a very long name, another very long name]",
        " " * 32 + "Regular expressions over names, explained in so many words that they do not fit into one",
        " " * 32 + "line of the help, which is 120 characters wide.",
        "  part.depth=4                  Number of layers.",
        "  unexplained=null",
    ]


@pytest.mark.parametrize("cls", [GenerateConfig, EvaluateConfig, PrepareConfig, TrainConfig, VAETrainConfig])
def test_every_option_of_a_command_is_explained(cls):
    """Sizes of networks have diffusers' names and no explanation."""
    lines = [line for line in describe(cls).splitlines() if not line.startswith(("  vae.", "  image_encoder."))]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if not line.startswith("   "):  # an option, not the rest of a meaning
            assert re.fullmatch(r"  [\w.]+=.*  \S.+", line) or following.startswith("   "), line


def test_values_are_frozen_and_checked():
    with pytest.raises(ValidationError):
        Part(depth="deep")
    with pytest.raises(AttributeError):
        Part().depth = 2
