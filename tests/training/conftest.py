"""A small dataset and the smallest model that has every kind of part."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from mimicmotion_jax import MimicMotionPipeline, sharding
from mimicmotion_jax.checkpoint import save_checkpoint
from mimicmotion_jax.config import load_config
from mimicmotion_jax.data.prepare import PrepareConfig, prepare
from mimicmotion_jax.data.sources import VideoFolder
from mimicmotion_jax.models.build import NETWORKS
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.pose.render import draw_poses
from mimicmotion_jax.synthetic.dancer import demo_motion
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.video.encode import open_writer

SIZE = 64


@pytest.fixture(scope="session")
def smallest_model() -> ModelConfig:
    tiny = ModelConfig.tiny()
    unet = dataclasses.replace(
        tiny.unet,
        down_block_types=tiny.unet.down_block_types[:1],
        up_block_types=tiny.unet.up_block_types[1:],
        block_out_channels=(32,),
        num_attention_heads=(2,),
    )
    return dataclasses.replace(tiny, unet=unet, window_size=4)


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    """Two prepared videos of a skeleton on a grey ground."""
    folder = tmp_path_factory.mktemp("videos")
    for number, shade in enumerate((60, 160)):
        keypoints = demo_motion(12, 12, SIZE, SIZE)[number:]
        drawn = draw_poses(keypoints, SIZE, SIZE)
        with open_writer(folder / f"{number}.mp4", 12, SIZE, SIZE, progress=False) as writer:
            writer.write(np.where(drawn > 20, drawn, np.uint8(shade)))
        save_keypoints(keypoints, folder / f"{number}.npz")
    output = tmp_path_factory.mktemp("datasets") / "clips"
    options = load_config(PrepareConfig, overrides=[f"resolution={SIZE}", "min_frames=5"])
    prepare(VideoFolder(folder), output, options, progress=False)
    return output


@pytest.fixture(scope="session")
def weights(smallest_model, tmp_path_factory) -> Path:
    """A checkpoint with random weights: drawing them anew in every run would take longer than the run."""
    pipeline = MimicMotionPipeline.random(smallest_model, dtype="float32", mesh=sharding.sampling_mesh(1))
    directory = tmp_path_factory.mktemp("checkpoints") / "random"
    states = {name: nnx.state(getattr(pipeline, name)) for name in NETWORKS}
    save_checkpoint(directory, pipeline.config, states, progress=False)
    return directory


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory):
    """What one test has compiled the next one finds, in other processes too."""
    folder = tmp_path_factory.mktemp("compiled")
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(folder))
    yield folder
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture(scope="session")
def make_config(clips, weights):
    """A function from an output folder and `key=value` overrides to the configuration of a short run."""

    def make(output: Path, *overrides: str) -> TrainConfig:
        base = [
            f"output={output}",
            f"checkpoint={weights}",
            f"data.dataset={clips}",
            f"data.width={SIZE}",
            f"data.height={SIZE}",
            *("data.num_frames=4", "data.interval=[1, 2]", "data.antialias=true"),
            *("steps=5", "batch_size=4", "dtype=float32", "log_every=1", "save_every=100", "sample_every=null"),
            *("optimizer.learning_rate=1.0e-3", "optimizer.warmup_steps=2"),
        ]
        return load_config(TrainConfig, overrides=[*base, *overrides])

    return make
