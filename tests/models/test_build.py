"""Construction of networks: abstract without memory, and initialised in shards."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from mimicmotion_jax.models.build import NETWORKS, abstract_network, init_network
from mimicmotion_jax.models.config import ModelConfig

FULL_SIZE = {  # parameters of the classes in diffusers and transformers for the official config.json files
    "unet": 1_524_623_082,
    "vae": 97_742_847,
    "image_encoder": 632_076_800,
    "pose_net": 205_557,  # appendix B, table 3, worked by hand, and the scale
}


def test_the_full_model_is_abstract():
    before = sum(array.nbytes for array in jax.live_arrays())
    for name in NETWORKS:
        leaves = jax.tree.leaves(abstract_network(name, ModelConfig(), jnp.bfloat16))
        assert sum(leaf.size for leaf in leaves) == FULL_SIZE[name]
        assert all(isinstance(leaf, jax.ShapeDtypeStruct) and leaf.dtype == jnp.bfloat16 for leaf in leaves)
    assert sum(array.nbytes for array in jax.live_arrays()) - before < 1e6


def test_parameters_are_initialised_sharded_and_equal_on_any_mesh():
    config = ModelConfig.tiny()
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    shapes = {
        ".".join(map(str, path)): leaf.get_value().shape
        for path, leaf in nnx.to_flat_state(nnx.state(abstract_network("pose_net", config)))
    }

    def place(path: str) -> NamedSharding:
        last = shapes[path][-1]
        spec = [None] * (len(shapes[path]) - 1) + ["fsdp" if last % 8 == 0 else None]
        return NamedSharding(mesh, PartitionSpec(*spec))

    whole = init_network("pose_net", config, seed=0)
    pieces = init_network("pose_net", config, seed=0, place=place)
    kernel = pieces.conv_layers[7].kernel[...]
    assert kernel.addressable_shards[0].data.shape == (3, 3, 64, 16)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(pieces), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
