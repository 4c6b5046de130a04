"""The files that explain options say what the programs do."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml

from mimicmotion_jax.cli import evaluate, sample
from mimicmotion_jax.cli import prepare as prepare_data
from mimicmotion_jax.config import to_dict
from mimicmotion_jax.evaluation.config import EvaluateConfig
from mimicmotion_jax.inference.options import GenerateConfig, load_options
from mimicmotion_jax.runtime.errors import InputError

ROOT = Path(__file__).resolve().parents[2]

EXPLAINED = ROOT / "configs" / "sample.yaml"


@pytest.mark.parametrize(
    ("script", "name", "options"),
    [
        (sample, "sample", GenerateConfig),
        (prepare_data, "prepare", prepare_data.ScriptConfig),
        (evaluate, "evaluate", EvaluateConfig),
    ],
)
def test_every_option_is_explained_with_its_default(script, name, options, capsys):
    text = (ROOT / "configs" / f"{name}.yaml").read_text()
    uncommented = re.sub(r"^#((?:  )?[a-z_]+:)(?= |$)", r"\1", text, flags=re.MULTILINE)
    assert yaml.safe_load(uncommented) == json.loads(json.dumps(to_dict(options())))
    assert yaml.safe_load(text) is None
    with pytest.raises(SystemExit):
        script.parse_args(["--help"])
    assert f"configs/{name}.yaml" in capsys.readouterr().out


@pytest.mark.parametrize("checkpoint", [None, ROOT / "mimicmotion_jax" / "weights" / "small"])
def test_as_it_is_the_file_changes_nothing(checkpoint):
    """A checkpoint's own options hold, of which the small model has some."""
    options = load_options(checkpoint, EXPLAINED, [])
    assert options == load_options(checkpoint, None, [])
    assert dataclasses.replace(options, stroke_width=1.0) != options or checkpoint is None


def test_a_preset_yields_to_options_that_are_given(tmp_path):
    fast = load_options(overrides=["preset=fast"])
    assert (fast.schedule, fast.num_steps, fast.guidance_interval, fast.unet_calls) == ("ays", 10, (0.05, 20.0), 17)
    assert load_options(overrides=["num_inference_steps=5", "preset=draft"]).num_steps == 5
    (path := tmp_path / "my.yaml").write_text("preset: fast\nguidance_interval: null\n")
    given = load_options(path=path, overrides=["preset=draft"])
    assert (given.num_steps, given.guidance_interval, given.schedule) == (4, None, "ays")
    small = ROOT / "mimicmotion_jax" / "weights" / "small"
    exact, own = load_options(small, overrides=["preset=exact"]), load_options(small)
    assert (exact.num_steps, exact.schedule, exact.sampler) == (25, "karras", "euler")
    assert own.num_steps != 25
    assert exact.guidance_scale == own.guidance_scale
    assert dataclasses.replace(load_options(overrides=["preset=exact"]), preset=None) == GenerateConfig()
    args = sample.parse_args(["--preset", "draft", "--image", "a.png", "seed=3"])
    assert (args.preset, args.options) == ("draft", ["seed=3"])


def test_an_unknown_preset_is_refused():
    with pytest.raises(InputError, match=r"preset.*'exact', 'fast' or 'draft'") as caught:
        load_options(overrides=["preset=[slow]"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "option",
    [
        *("resolution=64000", "width=64000", "motion_size=[0,5]", "start=.inf", "start=.nan", "start=1e300"),
        *("stride=1000000000", "num_frames=1000000000000", "batch_size=1000000000"),
        *("window_size=200000000", "window_overlap=200000000", "group_size=200000000", "decode_chunk_size=200000000"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused_by_name(option):
    with pytest.raises(InputError, match=f"{option.partition('=')[0]}.*: input should be") as caught:
        load_options(overrides=[option])
    assert "\n" not in str(caught.value)
