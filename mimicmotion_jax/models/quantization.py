"""Kernels in int8 with a scale per output channel, which are dequantised where a layer uses them.

Compilers for GPUs and TPUs do that kernel by kernel inside the denoising loop; the one for CPUs dequantises all of them
at once, which saves nothing (docs/faster.md).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int8

QUANTIZED = ("unet", "image_encoder")
"""Networks whose weights are worth it: the VAE and PoseNet have 4 % of all."""

_LARGEST = 127
_KEPT = ("conv_in", "conv_out", "embedding", "visual_projection")
"""Words in the paths of layers that stay as they are: small ones at the ends of the networks, and embeddings."""


class Quantized(NamedTuple):
    """Values [..., out] and a scale [out] whose product is the kernel."""

    values: Int8[Array, "..."]
    scale: Float[Array, " out"]

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype of the dequantised kernel."""
        return self.scale.dtype


class Int8Kernel(nnx.Param[Any]):
    """Kernel that is kept in int8; reading it gives the dequantised one, in the dtype of the scale."""

    def get_value(self, *, index: Any = ...) -> Float[Array, "..."]:
        """Dequantise, and take `index` of the result."""
        values, scale = super().get_value()
        return (values.astype(scale.dtype) * scale)[index]


@jax.jit
def quantize_array(kernel: Float[Array, "..."]) -> Quantized:
    """Round each output channel (last axis) to multiples of 1/127 of its largest value.

    The scale is rounded to the kernel's dtype first, so that values are off by half a scale at most in any dtype.
    """
    largest = jnp.max(jnp.abs(kernel), axis=tuple(range(kernel.ndim - 1)))
    scale = (largest / _LARGEST).astype(kernel.dtype)
    scale = jnp.where(scale == 0, 1, scale)
    rounded = jnp.round(kernel.astype(jnp.float32) / scale.astype(jnp.float32))
    return Quantized(jnp.clip(rounded, -_LARGEST, _LARGEST).astype(jnp.int8), scale)


def quantize_network(network: nnx.Module) -> None:
    """Replace the kernels of linear layers and convolutions by int8 ones in place, but for small, sensitive layers.

    Args:
        network: with arrays, or with shapes in their place.
    """
    layers: Any = nnx.iter_modules(network)
    for path, layer in layers:
        kernel = getattr(layer, "kernel", None)
        if isinstance(kernel, nnx.Param) and not any(word in str(path) for word in _KEPT):
            array = kernel.get_value()
            abstract = isinstance(array, jax.ShapeDtypeStruct)
            quantized = _shapes(array) if abstract else quantize_array(array)
            layer.kernel = Int8Kernel(quantized)


def is_quantized(network: nnx.Module) -> bool:
    """Return True if kernels of the network are in int8."""
    return any(isinstance(leaf, Int8Kernel) for _, leaf in nnx.iter_graph(network))


def _shapes(kernel: jax.ShapeDtypeStruct) -> Quantized:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=kernel.sharding),
        jax.eval_shape(quantize_array, kernel),
    )
