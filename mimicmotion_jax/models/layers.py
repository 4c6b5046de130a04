"""Basic layers of the networks: linear layers, norms, embeddings, self-attention.

Arrays are channels last, videos [B, F, H, W, C]. A network computes in the dtype of its parameters; inputs are cast to
it. Attribute names are those of the PyTorch checkpoints.
"""

import dataclasses
import math

import einops
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mimicmotion_jax.models.attention import dot_product_attention
from mimicmotion_jax.models.config import NUM_GROUPS
from mimicmotion_jax.models.execution import DEFAULT, Execution


@dataclasses.dataclass(frozen=True)
class Init:
    """Settings for creating parameters, the first argument of every layer.

    Attributes:
        rngs: keys of the initial values.
        param_dtype: dtype of the parameters, and so of the computation.
        groups: number of groups of every group norm.
    """

    rngs: nnx.Rngs
    param_dtype: jnp.dtype = jnp.float32
    groups: int = NUM_GROUPS


def init_kernel(key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Float[Array, "..."]:
    """Draw from a normal distribution with variance 1 / fan-in."""
    return jax.random.normal(key, shape, dtype) * math.prod(shape[:-1]) ** -0.5


def value(param: nnx.Param[Array] | None) -> Array:
    """Array of a parameter that is optional in flax, for layers that always have it."""
    assert param is not None
    return param[...]


class Linear(nnx.Linear):
    """Linear layer, to whose output a low-rank adapter may add its own (`models.lora`)."""

    lora: nnx.LoRA | None = None

    def __init__(self, init: Init, in_dim: int, out_dim: int, *, use_bias: bool = True):
        super().__init__(
            in_dim, out_dim, use_bias=use_bias, kernel_init=init_kernel, param_dtype=init.param_dtype, rngs=init.rngs
        )

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]  (flax has an `out_sharding`)
        self, inputs: Float[Array, "... cin"]
    ) -> Float[Array, "... cout"]:
        return self.adapt(inputs, super().__call__(inputs))

    def adapt(self, x: Float[Array, "... cin"], out: Float[Array, "... cout"]) -> Float[Array, "... cout"]:
        """Add the adapter's output for `x`, if there is an adapter, to the layer's own."""
        return out if self.lora is None else out + self.lora(x)


class GroupNorm(nnx.GroupNorm):
    """Group norm over all axes between the first and the last.

    Means are taken over positions first and over a group's channels afterwards, so that the large array is never
    reshaped. The result is x a + b with a and b per channel, which compilers fuse with the next layer. A `shift`, the
    same at all positions, is added to x first: written here, it costs no pass over memory; written after a convolution,
    XLA makes an array of it for cuDNN.
    """

    def __init__(self, init: Init, channels: int, epsilon: float):
        super().__init__(channels, init.groups, epsilon=epsilon, param_dtype=init.param_dtype, rngs=init.rngs)

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]  (flax has a mask)
        self, x: Float[Array, "n *p c"], shift: Float[Array, "n *one c"] | None = None
    ) -> Float[Array, "n *p c"]:
        x32 = x.astype(jnp.float32) + (0 if shift is None else shift.astype(jnp.float32))
        mean = self._average(x32)
        # Half precision takes one pass, which compilers fuse with the producer of x; the cancellation stays below the
        # rounding of x itself. Float32 takes two, as in PyTorch.
        if x.dtype.itemsize == 2:
            variance = jnp.maximum(self._average(jnp.square(x32)) - jnp.square(mean), 0.0)
        else:
            variance = self._average(jnp.square(x32 - mean))
        factor = jax.lax.rsqrt(variance + self.epsilon) * value(self.scale).astype(jnp.float32)
        offset = value(self.bias).astype(jnp.float32) - mean * factor
        return (x32 * factor + offset).astype(x.dtype)

    def _average(self, x: Float[Array, "n *p c"]) -> Float[Array, "n *one c"]:
        """Mean over positions and the channels of each group, repeated for all channels of the group."""
        channels = jnp.mean(x, tuple(range(1, x.ndim - 1)), keepdims=True)
        groups = jnp.mean(einops.rearrange(channels, "... (g c) -> ... g c", g=self.num_groups), axis=-1)
        return jnp.repeat(groups, x.shape[-1] // self.num_groups, axis=-1)


class LayerNorm(nnx.LayerNorm):
    """Layer norm over the channels with PyTorch's epsilon.

    The variance takes two passes, which XLA makes one kernel on GPUs; it does not do so with E[x^2] - E[x]^2, which
    takes fewer cycles on a TPU in half precision.
    """

    def __init__(self, init: Init, channels: int, epsilon: float = 1e-5):
        super().__init__(channels, epsilon=epsilon, param_dtype=init.param_dtype, rngs=init.rngs)

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]  (flax has a mask)
        self, x: Float[Array, "*n c"], execution: Execution = DEFAULT
    ) -> Float[Array, "*n c"]:
        x32 = x.astype(jnp.float32)
        mean = jnp.mean(x32, axis=-1, keepdims=True)
        centred = x32 - mean
        if execution.platform == "tpu" and x.dtype.itemsize == 2:
            variance = jnp.maximum(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) - jnp.square(mean), 0.0)
        else:
            variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        factor = jax.lax.rsqrt(variance + self.epsilon) * value(self.scale).astype(jnp.float32)
        return (centred * factor + value(self.bias).astype(jnp.float32)).astype(x.dtype)


class TimestepEmbedding(nnx.Module):
    """Two linear layers with SiLU between (diffusers `TimestepEmbedding`)."""

    def __init__(self, init: Init, in_dim: int, hidden_dim: int, out_dim: int | None = None):
        self.linear_1 = Linear(init, in_dim, hidden_dim)
        self.linear_2 = Linear(init, hidden_dim, out_dim or hidden_dim)

    def __call__(self, x: Float[Array, "... cin"]) -> Float[Array, "... cout"]:
        return self.linear_2(nnx.silu(self.linear_1(x.astype(self.linear_1.kernel.dtype))))


def sinusoidal_embedding(x: Float[Array, "..."], dim: int) -> Float[Array, "... dim"]:
    """Compute [cos(x w_k), sin(x w_k)] with w_k = 10000^(-k / (dim/2)), k = 0 ... dim/2 - 1, in float32."""
    half = dim // 2
    frequencies = jnp.exp(-jnp.log(10000.0) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = x.astype(jnp.float32)[..., None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def gelu(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Exact GELU, x times the standard normal CDF of x (PyTorch `nn.GELU`), computed in float32.

    `jax.nn.gelu` uses erfc, which selects between two series and so keeps GPU compilers from fusing it with the product
    that follows (docs/performance.md).
    """
    x32 = x.astype(jnp.float32)
    return (x32 * (0.5 + 0.5 * jax.lax.erf(x32 * 2**-0.5))).astype(x.dtype)


def project_heads(linear: Linear, x: Float[Array, "n tokens c"], heads: int) -> Float[Array, "n tokens heads dim"]:
    """Apply a linear layer and split the result into heads.

    Splitting the result afterwards would copy it: 320 channels and 5 x 64 have different layouts in a TPU's memory.
    """
    kernel = einops.rearrange(linear.kernel[...], "c (heads dim) -> c heads dim", heads=heads)
    projected = jnp.einsum("ntc,chd->nthd", x, kernel)
    if linear.bias is not None:
        projected += linear.bias[...].reshape(heads, -1)
    return projected if linear.lora is None else projected + linear.lora(x).reshape(projected.shape)


def join_heads(linear: Linear, x: Float[Array, "n tokens heads dim"]) -> Float[Array, "n tokens c"]:
    """Merge heads and apply a linear layer."""
    kernel = einops.rearrange(linear.kernel[...], "(heads dim) c -> heads dim c", heads=x.shape[-2])
    out = jnp.einsum("nthd,hdc->ntc", x, kernel) + value(linear.bias)
    return linear.adapt(einops.rearrange(x, "n t heads dim -> n t (heads dim)"), out)


class SelfAttention(nnx.Module):
    """Multi-head self-attention over tokens (diffusers `Attention`)."""

    def __init__(self, init: Init, channels: int, heads: int, *, qkv_bias: bool = False):
        self.heads = heads
        self.to_q = Linear(init, channels, channels, use_bias=qkv_bias)
        self.to_k = Linear(init, channels, channels, use_bias=qkv_bias)
        self.to_v = Linear(init, channels, channels, use_bias=qkv_bias)
        self.to_out = Linear(init, channels, channels)

    def __call__(self, x: Float[Array, "n tokens c"], execution: Execution = DEFAULT) -> Float[Array, "n tokens c"]:
        x = execution.by_sequence(x)
        q, k, v = (
            execution.by_sequence(project_heads(linear, x, self.heads)) for linear in (self.to_q, self.to_k, self.to_v)
        )
        return join_heads(self.to_out, execution.by_sequence(dot_product_attention(q, k, v, execution)))
