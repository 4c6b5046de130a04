"""A small dataset, the smallest model, and configurations of short runs on them."""

import dataclasses
import socket
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from mimicmotion_jax import MimicMotionPipeline, sharding
from mimicmotion_jax.checkpoint import save_checkpoint
from mimicmotion_jax.config import load_config
from mimicmotion_jax.data.prepare import PrepareConfig, prepare
from mimicmotion_jax.data.sources import VideoFolder
from mimicmotion_jax.models.build import NETWORKS
from mimicmotion_jax.models.config import ModelConfig, PoseNetConfig
from mimicmotion_jax.pose.files import save_keypoints
from mimicmotion_jax.pose.render import draw_poses
from mimicmotion_jax.synthetic.dancer import demo_motion
from mimicmotion_jax.training.autoencoder.config import VAETrainConfig
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.video.encode import open_writer

SIZE = 64


@pytest.fixture(scope="session")
def smallest_model() -> ModelConfig:
    """Attention in the middle only: the gradients of every layer are compiled, which is most of these tests' time."""
    tiny = ModelConfig.tiny()
    unet = dataclasses.replace(
        tiny.unet,
        down_block_types=("DownBlockSpatioTemporal",),
        up_block_types=("UpBlockSpatioTemporal",),
        block_out_channels=(32,),
        num_attention_heads=(2,),
        norm_num_groups=8,
    )
    vae = dataclasses.replace(tiny.vae, block_out_channels=(32, 32, 32))
    pose_net = PoseNetConfig(channels=(8, 16), strides=(2, 2), out_channels=32)
    return dataclasses.replace(tiny, unet=unet, vae=vae, pose_net=pose_net, window_size=4)


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
    """A checkpoint with random weights, which is quicker to load than weights are to initialise in every run."""
    pipeline = MimicMotionPipeline.random(smallest_model, dtype="float32", mesh=sharding.sampling_mesh(1))
    directory = tmp_path_factory.mktemp("checkpoints") / "random"
    states = {name: nnx.state(getattr(pipeline, name)) for name in NETWORKS}
    save_checkpoint(directory, pipeline.config, states, progress=False)
    return directory


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
            *("optimizer.learning_rate=1.0e-3", "optimizer.warmup_steps=2", "remat=false"),
        ]
        return load_config(TrainConfig, overrides=[*base, *overrides])

    return make


@pytest.fixture(scope="session")
def free_port():
    """A function that returns a port nobody listens on."""

    def find() -> int:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            return free.getsockname()[1]

    return find


@pytest.fixture(scope="session")
def make_vae_config(clips):
    """A function from an output folder and `key=value` overrides to the configuration of a short run."""

    def make(output: Path, *overrides: str) -> VAETrainConfig:
        base = [
            *(f"output={output}", f"data.dataset={clips}", f"data.width={SIZE}", f"data.height={SIZE}"),
            *("data.num_frames=2", "data.interval=[1, 2]"),
            *("vae.block_out_channels=[16, 16]", "vae.layers_per_block=1", "vae.norm_num_groups=8"),
            *("image_encoder.hidden_size=32", "image_encoder.intermediate_size=64", "image_encoder.projection_dim=16"),
            *(
                "image_encoder.num_hidden_layers=1",
                "image_encoder.num_attention_heads=2",
                "image_encoder.patch_size=32",
            ),
            *("steps=4", "batch_size=2", "num_validation=2", "log_every=1", "save_every=100"),
            *("optimizer.learning_rate=1.0e-3", "optimizer.warmup_steps=2", "optimizer.decay=cosine"),
        ]
        return load_config(VAETrainConfig, overrides=[*base, *overrides])

    return make
