"""A mistake in a configuration is one short sentence: the key, what is allowed, what was given."""

import pytest

from mimicmotion_jax import InputError
from mimicmotion_jax.config import load_config
from mimicmotion_jax.data.prepare import PrepareConfig
from mimicmotion_jax.inference.options import GenerateConfig
from mimicmotion_jax.training.config import TrainConfig

CASES = [
    (GenerateConfig, "person=abc", "person: input should be 'largest' or 'central', or a valid integer, not 'abc'"),
    (
        GenerateConfig,
        "person=-2",
        "person: input should be 'largest' or 'central', or greater than or equal to 0, not -2",
    ),
    (GenerateConfig, "sed=3", "unknown key 'sed' (did you mean 'seed'?)"),
    (TrainConfig, "model=large", "model: input should be 'full' or 'tiny', not 'large'"),
    (
        TrainConfig,
        "model.vae.layer_per_block=1",
        "unknown key 'model.vae.layer_per_block' (did you mean 'model.vae.layers_per_block'?)",
    ),
    (TrainConfig, "model.window_size=1", "model.window_size: input should be greater than or equal to 2, not 1"),
    (TrainConfig, "mesh=3", "mesh: input should be a dictionary, not 3"),
    (TrainConfig, "learning_rate=1", "unknown key 'learning_rate' (did you mean 'optimizer.learning_rate'?)"),
    (TrainConfig, "data.interval=[3,1]", "data: interval (3, 1) is empty; give the smaller distance first"),
    (TrainConfig, "trainable=[]", "trainable: list should have at least 1 item, not []"),
    (TrainConfig, "optimizer.weight_decay=.inf", "optimizer.weight_decay: input should be a finite number, not inf"),
    (PrepareConfig, "max_seconds=.inf", "max_seconds: input should be a finite number, not inf"),
    (PrepareConfig, "max_seconds=1.0e+308", "max_seconds: input should be less than or equal to 1000000, not 1e+308"),
    (PrepareConfig, "size=[64,0]", "size.1: input should be greater than or equal to 1, not 0"),
]


@pytest.mark.parametrize(("cls", "option", "message"), CASES)
def test_mistakes(cls, option, message):
    with pytest.raises(InputError) as caught:
        load_config(cls, overrides=[option])
    assert str(caught.value) == f"the configuration has a mistake: {message}."


def test_long_values_and_lists_are_shortened():
    for option in ("model.unet.bogus=1", "seed=" + "[" * 5000, f"model={{a: {list(range(999))}}}", "steps=2026-99-99"):
        with pytest.raises(InputError) as caught:
            load_config(TrainConfig, overrides=[option])
        assert len(str(caught.value)) < 1000, option
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "message"), [("seed: " + "[" * 5000, "nested"), ("seed: 2026-99-99", "not valid")])
def test_files_that_yaml_chokes_on(content, message, tmp_path):
    (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(InputError, match=message):
        load_config(TrainConfig, tmp_path / "x.yaml")
