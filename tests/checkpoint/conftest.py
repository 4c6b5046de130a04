"""A small checkpoint on disk, for all files of this folder."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mimicmotion_jax.checkpoint import fill_network, flat_params, save_checkpoint
from mimicmotion_jax.models.build import abstract_network
from mimicmotion_jax.models.config import ModelConfig, PoseNetConfig, UNetConfig, VAEConfig

CONFIG = ModelConfig(
    unet=UNetConfig(block_out_channels=(32, 64), down_block_types=UNetConfig().down_block_types[2:],
                    up_block_types=UNetConfig().up_block_types[:2], num_attention_heads=(1, 2)),
    vae=VAEConfig(block_out_channels=(32,), layers_per_block=1),
    pose_net=PoseNetConfig(strides=(1,) * 8, out_channels=32),
    window_size=24,
)  # fmt: skip


@pytest.fixture(scope="session")
def config():
    return CONFIG


@pytest.fixture(scope="session")
def networks():
    """Parameters by network, drawn with NumPy: compiling an initialisation would take most of these tests' time."""
    generator = np.random.default_rng(0)

    def draw(name, dtype):
        network = abstract_network(name, CONFIG)
        shapes = {path: leaf.shape for path, leaf in flat_params(nnx.state(network)).items()}
        arrays = {path: jnp.asarray(generator.standard_normal(shape), dtype) for path, shape in shapes.items()}
        return nnx.state(fill_network(network, arrays))

    return {"vae": draw("vae", jnp.float32), "pose_net": draw("pose_net", jnp.bfloat16)}


@pytest.fixture(scope="session")
def stored(networks, tmp_path_factory):
    """The checkpoint. Not to be changed by a test."""
    root = tmp_path_factory.mktemp("stored") / "saved"
    save_checkpoint(root, CONFIG, networks, sources=[{"name": "here"}], progress=False)
    return root
