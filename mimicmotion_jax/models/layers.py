"""The smallest parts of the networks: products, convolutions, norms, embeddings, self-attention.

Arrays are channels last, videos [B, F, H, W, C]. A network computes in the dtype of its parameters: cast the parameters
and the inputs follow. Attribute names are those of the PyTorch checkpoints.
"""

import dataclasses
import math
from collections.abc import Callable

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
    """How parameters come to be; the first argument of every layer.

    Attributes:
        rngs: keys of the initial values.
        param_dtype: of the parameters, and so of the computation.
        groups: of every group norm.
    """

    rngs: nnx.Rngs
    param_dtype: jnp.dtype = jnp.float32
    groups: int = NUM_GROUPS


def init_kernel(key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Float[Array, "..."]:
    """Normal with variance 1 / fan-in."""
    return jax.random.normal(key, shape, dtype) * math.prod(shape[:-1]) ** -0.5


class Linear(nnx.Linear):
    """Matrix product and bias."""

    def __init__(self, init: Init, in_dim: int, out_dim: int, *, use_bias: bool = True):
        super().__init__(
            in_dim, out_dim, use_bias=use_bias, kernel_init=init_kernel, param_dtype=init.param_dtype, rngs=init.rngs
        )


def _moments(
    x: Float[Array, "..."], average: Callable[[Float[Array, "..."]], Float[Array, "..."]]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Mean and variance in float32, by means that `average` takes (and lets broadcast with x).

    In half precision in one pass, E[x^2] - E[x]^2, which compilers join to whatever makes x: what cancels there is
    below the rounding of x itself. In float32 in two, as PyTorch.
    """
    x = (given := x).astype(jnp.float32)
    mean = average(x)
    if given.dtype.itemsize == 2:
        return mean, jnp.maximum(average(jnp.square(x)) - jnp.square(mean), 0.0)
    return mean, average(jnp.square(x - mean))


class GroupNorm(nnx.GroupNorm):
    """Group norm over all axes between the first and the last.

    Sums run over positions first and over a group's channels afterwards, so that the large array is never reshaped, and
    the result is x a + b with a and b per channel: one pass, with what follows.
    """

    def __init__(self, init: Init, channels: int, epsilon: float):
        super().__init__(channels, init.groups, epsilon=epsilon, param_dtype=init.param_dtype, rngs=init.rngs)

    def __call__(self, x: Float[Array, "n *p c"]) -> Float[Array, "n *p c"]:
        mean, variance = _moments(x, self._average)
        factor = jax.lax.rsqrt(variance + self.epsilon) * self.scale[...].astype(jnp.float32)
        offset = self.bias[...].astype(jnp.float32) - mean * factor
        return (x.astype(jnp.float32) * factor + offset).astype(x.dtype)

    def _average(self, x: Float[Array, "n *p c"]) -> Float[Array, "n *one c"]:
        """Over the positions and each group, repeated for all channels of the group."""
        channels = jnp.mean(x, tuple(range(1, x.ndim - 1)), keepdims=True)
        groups = jnp.mean(einops.rearrange(channels, "... (g c) -> ... g c", g=self.num_groups), axis=-1)
        return jnp.repeat(groups, x.shape[-1] // self.num_groups, axis=-1)


class LayerNorm(nnx.LayerNorm):
    """Layer norm over the channels with PyTorch's epsilon."""

    def __init__(self, init: Init, channels: int, epsilon: float = 1e-5):
        super().__init__(channels, epsilon=epsilon, param_dtype=init.param_dtype, rngs=init.rngs)

    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        mean, variance = _moments(x, lambda x: jnp.mean(x, axis=-1, keepdims=True))
        factor = jax.lax.rsqrt(variance + self.epsilon) * self.scale[...].astype(jnp.float32)
        return ((x.astype(jnp.float32) - mean) * factor + self.bias[...].astype(jnp.float32)).astype(x.dtype)


class Conv(nnx.Conv):
    """Square 2-D convolution with explicit padding, as PyTorch pads (`"SAME"` pads otherwise at stride 2)."""

    def __init__(
        self,
        init: Init,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        padding: int | tuple[tuple[int, int], tuple[int, int]] = 0,
        *,
        use_bias: bool = True,
    ):
        super().__init__(
            in_channels,
            out_channels,
            (kernel, kernel),
            strides=(stride, stride),
            padding=((padding, padding),) * 2 if isinstance(padding, int) else padding,
            use_bias=use_bias,
            kernel_init=init_kernel,
            param_dtype=init.param_dtype,
            rngs=init.rngs,
        )


class TemporalConv(nnx.Module):
    """Convolution (3, 1, 1) over frames, zero-padded.

    PyTorch: `nn.Conv3d(kernel_size=(3, 1, 1), padding=(1, 0, 0))`; kernel [3, in, out].

    Either three matrix products on shifted copies, which XLA's partitioner cuts up well and which is the faster way on
    TPUs with a UNet's many channels and two branches; or (`whole`, and always on NVIDIA) one convolution per position,
    with which a VAE's blocks take a third to a half of the time on a TPU (docs/performance.md).
    """

    def __init__(self, init: Init, in_channels: int, out_channels: int, *, whole: bool = False):
        self.kernel = nnx.Param(init_kernel(init.rngs.params(), (3, in_channels, out_channels), init.param_dtype))
        self.bias = nnx.Param(jnp.zeros((out_channels,), init.param_dtype))
        self.whole = whole

    def __call__(self, x: Float[Array, "b f *p cin"], execution: Execution = DEFAULT) -> Float[Array, "b f *p cout"]:
        whole = self.whole or execution.platform == "cuda"
        return (self._convolution(x) if whole else self._products(x)) + self.bias[...]

    def _products(self, x: Float[Array, "b f *p cin"]) -> Float[Array, "b f *p cout"]:
        frames = x.shape[1]
        padded = jnp.pad(x, [(0, 0), (1, 1)] + [(0, 0)] * (x.ndim - 2))
        return sum(padded[:, tap : tap + frames] @ self.kernel[tap] for tap in range(3))

    def _convolution(self, x: Float[Array, "b f *p cin"]) -> Float[Array, "b f *p cout"]:
        batch = x.shape[0]
        by_position = einops.rearrange(x.reshape(*x.shape[:2], -1, x.shape[-1]), "b f p c -> (b p) f c")
        out = jax.lax.conv_general_dilated(
            by_position, self.kernel[...], (1,), ((1, 1),), dimension_numbers=("NWC", "WIO", "NWC")
        )
        return einops.rearrange(out, "(b p) f c -> b f p c", b=batch).reshape(*x.shape[:-1], -1)


class TimestepEmbedding(nnx.Module):
    """Linear, SiLU, linear (diffusers `TimestepEmbedding`)."""

    def __init__(self, init: Init, in_dim: int, hidden_dim: int, out_dim: int | None = None):
        self.linear_1 = Linear(init, in_dim, hidden_dim)
        self.linear_2 = Linear(init, hidden_dim, out_dim or hidden_dim)

    def __call__(self, x: Float[Array, "... cin"]) -> Float[Array, "... cout"]:
        return self.linear_2(nnx.silu(self.linear_1(x.astype(self.linear_1.kernel.dtype))))


def sinusoidal_embedding(x: Float[Array, "..."], dim: int) -> Float[Array, "... dim"]:
    """[cos(x w_k), sin(x w_k)] with w_k = 10000^(-k / (dim/2)), k = 0 ... dim/2 - 1, in float32."""
    half = dim // 2
    frequencies = jnp.exp(-jnp.log(10000.0) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = x.astype(jnp.float32)[..., None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def gelu(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """The exact GELU, x times the normal distribution's function of it (PyTorch `nn.GELU`), computed in float32.

    jax has it by erfc, which chooses between two series; GPUs' compilers then write the result of one half to memory
    before they multiply (docs/performance.md).
    """
    wide = x.astype(jnp.float32)
    return (wide * (0.5 + 0.5 * jax.lax.erf(wide * 2**-0.5))).astype(x.dtype)


def project_heads(linear: Linear, x: Float[Array, "n tokens c"], heads: int) -> Float[Array, "n tokens heads dim"]:
    """A linear layer whose result has the heads apart.

    Split afterwards it would be copied: 320 channels and 5 x 64 lie differently in a TPU's memory.
    """
    kernel = einops.rearrange(linear.kernel[...], "c (heads dim) -> c heads dim", heads=heads)
    projected = jnp.einsum("ntc,chd->nthd", x, kernel)
    return projected if linear.bias is None else projected + linear.bias[...].reshape(heads, -1)


def join_heads(linear: Linear, x: Float[Array, "n tokens heads dim"]) -> Float[Array, "n tokens c"]:
    """A linear layer of what has the heads apart."""
    kernel = einops.rearrange(linear.kernel[...], "(heads dim) c -> heads dim c", heads=x.shape[-2])
    return jnp.einsum("nthd,hdc->ntc", x, kernel) + linear.bias[...]


class SelfAttention(nnx.Module):
    """Multi-head self-attention over the last but one axis (diffusers `Attention`)."""

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
