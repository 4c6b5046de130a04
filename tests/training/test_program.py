"""The training step compiles for TPUs that are not present, and no chip does work twice."""

import dataclasses
import json

import pytest

from mimicmotion_jax.cli.train import compile_only
from mimicmotion_jax.config import load_config
from mimicmotion_jax.models.config import ModelConfig, PoseNetConfig
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.training.config import TrainConfig


@pytest.mark.slow
def test_compiles_for_a_tpu_slice(smallest_model):
    options = ["data.width=64", "data.height=64", "data.num_frames=4", "batch_size=2", "mesh.frames=2"]
    # Latents of 8 x 8: with those of 16 x 16 the compiled program has a quarter more operations than the model.
    pose_net = PoseNetConfig(channels=(8, 8, 16), strides=(2, 2, 2), out_channels=32)
    model = dataclasses.replace(smallest_model, vae=ModelConfig.tiny().vae, pose_net=pose_net)
    config = dataclasses.replace(load_config(TrainConfig, overrides=options), model=model)
    report = json.loads(json.dumps(compile_only(config, "v5e:2x2")))
    assert report["mesh"] == {"data": 1, "fsdp": 2, "frames": 2}
    step = report["train_step"]
    assert step["chips"] == 4
    assert step["fits"] is True
    assert step["memory"]["resident"] > 0
    assert step["collectives"].keys() >= {"all-gather", "all-to-all"}
    # Forward, backward (twice the forward) and the forward again, because blocks are recomputed.
    expected = 4 / 3 * report["model_flops_per_sample"] * config.batch_size / 4
    assert step["flops_per_chip"] == pytest.approx(expected, rel=0.1)
    assert report["encoding"]["fits"] is True


@pytest.mark.cuda_compiler
def test_a_step_on_several_gpus_takes_the_memory_of_one():
    """Per sample: activations must not be kept until the gradients computed from them are summed over devices."""
    options = ["data.width=384", "data.height=256", "data.encodings=true", "objective.noise_aug_strength=0"]
    temporaries = []
    for devices in (1, 4):
        split = [f"mesh.data={devices}", "mesh.fsdp=1", f"batch_size={devices}"]
        config = dataclasses.replace(load_config(TrainConfig, overrides=options + split), model=ModelConfig.tiny())
        step = compile_only(config, f"h100:{devices}")["train_step"]
        temporaries.append(step["memory"]["temporaries"])
    assert temporaries[1] < 1.2 * temporaries[0]


def test_unknown_topology():
    with pytest.raises(InputError, match="v9z"):
        compile_only(TrainConfig(), "v9z:2x2")
