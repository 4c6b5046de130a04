"""Construction of the four networks by name: abstract (shapes only) or freshly initialised with given shardings."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Sharding

from mimicmotion_jax.models.clip import CLIPImageEncoder
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.models.pose_net import PoseNet
from mimicmotion_jax.models.unet import UNet
from mimicmotion_jax.models.vae import VAE
from mimicmotion_jax.runtime.seeds import fold_seed

NETWORKS = {"unet": UNet, "vae": VAE, "image_encoder": CLIPImageEncoder, "pose_net": PoseNet}


class _Keys(nnx.Rngs):
    """Random keys, one per parameter, counted in Python.

    `nnx.Rngs` counts in jax, which takes half a minute of tracing for the full UNet.
    """

    def __init__(self, seed: int):
        super().__init__(seed)
        count = itertools.count()
        self._draw = lambda: jax.random.fold_in(jax.random.key(fold_seed(seed)), next(count))

    def params(self) -> jax.Array:
        return self._draw()


def abstract_network(name: str, config: ModelConfig, param_dtype: jnp.dtype = jnp.float32) -> nnx.Module:
    """Build the network `name` (a key of `NETWORKS`) with shapes in place of parameters, without memory."""
    return nnx.merge(*_split_abstract(name, getattr(config, name), jnp.dtype(param_dtype)), copy=True)


@functools.lru_cache(maxsize=32)
def _split_abstract(name: str, config: Any, param_dtype: jnp.dtype) -> tuple[nnx.GraphDef[nnx.Module], nnx.State]:
    """The same, taken apart: tracing the full UNet takes seconds, and a run builds each network several times."""
    return nnx.split(nnx.eval_shape(lambda: NETWORKS[name](config, rngs=_Keys(0), param_dtype=param_dtype)))


def init_network(
    name: str,
    config: ModelConfig,
    seed: int,
    param_dtype: jnp.dtype = jnp.float32,
    place: Callable[[str], Sharding] | None = None,
) -> nnx.Module:
    """Build a freshly initialised network; no device ever holds more than its own shards.

    Args:
        name: a key of `NETWORKS`.
        config: sizes of all networks.
        seed: seed of the initial values.
        param_dtype: dtype of the parameters.
        place: function from a parameter's dotted path to its sharding; None puts all on the default device.
    """

    def init() -> nnx.State:
        return nnx.state(NETWORKS[name](getattr(config, name), rngs=_Keys(seed), param_dtype=param_dtype))

    graph, abstract = _split_abstract(name, getattr(config, name), jnp.dtype(param_dtype))
    shardings = None
    if place is not None:
        leaves = [(path, v.replace(place(".".join(map(str, path))))) for path, v in nnx.to_flat_state(abstract)]
        shardings = nnx.from_flat_state(leaves)
    # Compiled without optimisation on CPU: the program runs once, and optimising random numbers takes long there.
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    on_cpu = jax.default_backend() == "cpu"
    return nnx.merge(graph, jax.jit(init, out_shardings=shardings, compiler_options=options if on_cpu else None)())


def random_network(
    name: str, config: ModelConfig, generator: np.random.Generator, param_dtype: jnp.dtype = jnp.float32
) -> nnx.Module:
    """Build a network with random weights in the host's memory.

    Drawn with NumPy leaf by leaf: compiling the initialisation of a small network takes longer than running it.
    """

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if leaf.ndim > 1:  # a matrix or a kernel: variance 1 / fan-in
            values = generator.standard_normal(leaf.shape) * np.prod(leaf.shape[:-1]) ** -0.5
        else:  # norms multiply by one; biases and mixing factors are zero
            values = np.full(leaf.shape, 1.0 if path[-1] == "scale" else 0.0)
        return values.astype(param_dtype)

    graph, state = nnx.split(abstract_network(name, config))
    leaves = [(path, v.replace(draw(path, v.get_value()))) for path, v in nnx.to_flat_state(state)]
    return nnx.merge(graph, nnx.from_flat_state(leaves))
