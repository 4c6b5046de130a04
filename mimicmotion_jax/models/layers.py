"""Building blocks that the UNet and the VAE share: norms, temporal convolution, residual blocks, embeddings.

Arrays are channels last, videos [B, F, H, W, C]. A network computes in the dtype of its parameters: cast the parameters
and the inputs follow. Attribute names are those of the PyTorch checkpoints.
"""

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


def init_kernel(key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Float[Array, "..."]:
    """Normal with variance 1 / fan-in."""
    return jax.random.normal(key, shape, dtype) * math.prod(shape[:-1]) ** -0.5


class Linear(nnx.Linear):
    """Matrix product and bias."""

    def __init__(self, in_dim: int, out_dim: int, *, use_bias: bool = True, rngs: nnx.Rngs, param_dtype: jnp.dtype):
        super().__init__(
            in_dim, out_dim, use_bias=use_bias, kernel_init=init_kernel, param_dtype=param_dtype, rngs=rngs
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

    def __init__(
        self,
        channels: int,
        epsilon: float,
        *,
        norm_num_groups: int = NUM_GROUPS,
        rngs: nnx.Rngs,
        param_dtype: jnp.dtype,
    ):
        super().__init__(channels, norm_num_groups, epsilon=epsilon, param_dtype=param_dtype, rngs=rngs)

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

    def __init__(self, channels: int, *, rngs: nnx.Rngs, param_dtype: jnp.dtype, epsilon: float = 1e-5):
        super().__init__(channels, epsilon=epsilon, param_dtype=param_dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        mean, variance = _moments(x, lambda x: jnp.mean(x, axis=-1, keepdims=True))
        factor = jax.lax.rsqrt(variance + self.epsilon) * self.scale[...].astype(jnp.float32)
        return ((x.astype(jnp.float32) - mean) * factor + self.bias[...].astype(jnp.float32)).astype(x.dtype)


class Conv(nnx.Conv):
    """Square 2-D convolution with explicit padding, as PyTorch pads (`"SAME"` pads otherwise at stride 2)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        padding: int | tuple[tuple[int, int], tuple[int, int]] = 0,
        *,
        use_bias: bool = True,
        rngs: nnx.Rngs,
        param_dtype: jnp.dtype,
    ):
        super().__init__(
            in_channels,
            out_channels,
            (kernel, kernel),
            strides=(stride, stride),
            padding=((padding, padding),) * 2 if isinstance(padding, int) else padding,
            use_bias=use_bias,
            kernel_init=init_kernel,
            param_dtype=param_dtype,
            rngs=rngs,
        )


class TemporalConv(nnx.Module):
    """Convolution (3, 1, 1) over frames, zero-padded.

    PyTorch: `nn.Conv3d(kernel_size=(3, 1, 1), padding=(1, 0, 0))`; kernel [3, in, out].

    Either three matrix products on shifted copies, which XLA's partitioner cuts up well and which is the faster way on
    TPUs with a UNet's many channels and two branches; or (`whole`, and always on NVIDIA) one convolution per position,
    with which a VAE's blocks take a third to a half of the time on a TPU (docs/performance.md).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        whole: bool = False,
        rngs: nnx.Rngs,
        param_dtype: jnp.dtype,
    ):
        self.kernel = nnx.Param(init_kernel(rngs.params(), (3, in_channels, out_channels), param_dtype))
        self.bias = nnx.Param(jnp.zeros((out_channels,), param_dtype))
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

    def __init__(
        self, in_dim: int, hidden_dim: int, out_dim: int | None = None, *, rngs: nnx.Rngs, param_dtype: jnp.dtype
    ):
        self.linear_1 = Linear(in_dim, hidden_dim, param_dtype=param_dtype, rngs=rngs)
        self.linear_2 = Linear(hidden_dim, out_dim or hidden_dim, param_dtype=param_dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "... cin"]) -> Float[Array, "... cout"]:
        return self.linear_2(nnx.silu(self.linear_1(x.astype(self.linear_1.kernel.dtype))))


def sinusoidal_embedding(x: Float[Array, "..."], dim: int) -> Float[Array, "... dim"]:
    """[cos(x w_k), sin(x w_k)] with w_k = 10000^(-k / (dim/2)), k = 0 ... dim/2 - 1, in float32."""
    half = dim // 2
    frequencies = jnp.exp(-jnp.log(10000.0) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = x.astype(jnp.float32)[..., None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class ResnetBlock(nnx.Module):
    """Norm, SiLU, convolution, twice, around a shortcut; each frame by itself (diffusers `ResnetBlock2D`)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_dim: int | None,
        epsilon: float,
        *,
        norm_num_groups: int = NUM_GROUPS,
        rngs: nnx.Rngs,
        param_dtype: jnp.dtype,
    ):
        make = {"rngs": rngs, "param_dtype": param_dtype}
        self.norm1 = GroupNorm(in_channels, epsilon, norm_num_groups=norm_num_groups, **make)
        self.conv1 = Conv(in_channels, out_channels, 3, padding=1, **make)
        if embedding_dim is not None:
            self.time_emb_proj = Linear(embedding_dim, out_channels, **make)
        self.norm2 = GroupNorm(out_channels, epsilon, norm_num_groups=norm_num_groups, **make)
        self.conv2 = Conv(out_channels, out_channels, 3, padding=1, **make)
        self.conv_shortcut = Conv(in_channels, out_channels, 1, **make) if in_channels != out_channels else None

    def __call__(
        self, x: Float[Array, "n h w cin"], embedding: Float[Array, "n e"] | None = None
    ) -> Float[Array, "n h w cout"]:
        h = self.conv1(nnx.silu(self.norm1(x)))
        if embedding is not None:
            h += self.time_emb_proj(nnx.silu(embedding))[:, None, None]
        h = self.conv2(nnx.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class TemporalResnetBlock(nnx.Module):
    """The residual block along frames; its norms span all frames (diffusers `TemporalResnetBlock`)."""

    def __init__(
        self,
        channels: int,
        embedding_dim: int | None,
        epsilon: float,
        *,
        norm_num_groups: int = NUM_GROUPS,
        rngs: nnx.Rngs,
        param_dtype: jnp.dtype,
    ):
        make = {"rngs": rngs, "param_dtype": param_dtype}
        whole = embedding_dim is None  # in the VAE
        self.norm1 = GroupNorm(channels, epsilon, norm_num_groups=norm_num_groups, **make)
        self.conv1 = TemporalConv(channels, channels, whole=whole, **make)
        if embedding_dim is not None:
            self.time_emb_proj = Linear(embedding_dim, channels, **make)
        self.norm2 = GroupNorm(channels, epsilon, norm_num_groups=norm_num_groups, **make)
        self.conv2 = TemporalConv(channels, channels, whole=whole, **make)

    def __call__(
        self, x: Float[Array, "b f p c"], embedding: Float[Array, "b e"] | None, execution: Execution
    ) -> Float[Array, "b f p c"]:
        h = self.conv1(nnx.silu(self.norm1(x)), execution)
        if embedding is not None:
            h += self.time_emb_proj(nnx.silu(embedding))[:, None, None]
        return x + self.conv2(nnx.silu(self.norm2(h)), execution)


class AlphaBlender(nnx.Module):
    """Learned mixture of the spatial and the temporal branch (diffusers `AlphaBlender`, strategy "learned").

    out = a spatial + (1 - a) temporal with a = sigmoid(mix_factor), or a = 1 - sigmoid(mix_factor) when `switched`.
    """

    def __init__(self, initial: float, *, switched: bool = False, param_dtype: jnp.dtype):
        self.mix_factor = nnx.Param(jnp.full((1,), initial, param_dtype))
        self.switched = switched

    def __call__(self, spatial: Float[Array, "..."], temporal: Float[Array, "..."]) -> Float[Array, "..."]:
        mix = self.mix_factor[...].astype(jnp.float32)
        alpha = jax.nn.sigmoid(-mix if self.switched else mix).astype(spatial.dtype)
        return alpha * spatial + (1 - alpha) * temporal


class SpatioTemporalResBlock(nnx.Module):
    """Spatial residual block, temporal residual block, learned mixture (diffusers `SpatioTemporalResBlock`).

    In the UNet the step embedding enters and the mixture starts at 0.5; in the VAE's decoder (`embedding_dim=None`)
    there is none, the mixture starts at 0 and is switched.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_dim: int | None,
        epsilon: float,
        temporal_epsilon: float | None = None,
        *,
        norm_num_groups: int = NUM_GROUPS,
        rngs: nnx.Rngs,
        param_dtype: jnp.dtype,
    ):
        make = {"norm_num_groups": norm_num_groups, "rngs": rngs, "param_dtype": param_dtype}
        in_vae = embedding_dim is None
        self.spatial_res_block = ResnetBlock(in_channels, out_channels, embedding_dim, epsilon, **make)
        self.temporal_res_block = TemporalResnetBlock(out_channels, embedding_dim, temporal_epsilon or epsilon, **make)
        self.time_mixer = AlphaBlender(0.0 if in_vae else 0.5, switched=in_vae, param_dtype=param_dtype)

    def __call__(
        self,
        x: Float[Array, "b f h w cin"],
        embedding: Float[Array, "b e"] | None = None,
        execution: Execution = DEFAULT,
    ) -> Float[Array, "b f h w cout"]:
        batch, frames, height = x.shape[:3]
        per_frame = None if embedding is None else jnp.repeat(embedding, frames, axis=0)
        spatial = self.spatial_res_block(einops.rearrange(x, "b f h w c -> (b f) h w c"), per_frame)
        spatial = execution.by_frame(einops.rearrange(spatial, "(b f) h w c -> b f (h w) c", b=batch))
        temporal = self.temporal_res_block(execution.by_position(spatial), embedding, execution)
        temporal = execution.by_frame(execution.by_position(temporal))
        return einops.rearrange(self.time_mixer(spatial, temporal), "b f (h w) c -> b f h w c", h=height)


class Downsample(nnx.Module):
    """Convolution of stride 2 (diffusers `Downsample2D`): the UNet's pads (1, 1), the VAE encoder's (0, 1)."""

    def __init__(self, channels: int, padding: tuple[int, int], *, rngs: nnx.Rngs, param_dtype: jnp.dtype):
        self.conv = Conv(channels, channels, 3, stride=2, padding=(padding,) * 2, rngs=rngs, param_dtype=param_dtype)

    def __call__(self, x: Float[Array, "*n h w c"]) -> Float[Array, "*n h2 w2 c"]:
        return self.conv(x)


class Upsample(nnx.Module):
    """Each position repeated 2 x 2, then a convolution (diffusers `Upsample2D`)."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs, param_dtype: jnp.dtype):
        self.conv = Conv(channels, channels, 3, padding=1, rngs=rngs, param_dtype=param_dtype)

    def __call__(self, x: Float[Array, "*n h w c"]) -> Float[Array, "*n h2 w2 c"]:
        return self.conv(einops.repeat(x, "... h w c -> ... (h 2) (w 2) c"))


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

    def __init__(self, channels: int, heads: int, *, qkv_bias: bool = False, rngs: nnx.Rngs, param_dtype: jnp.dtype):
        make = {"rngs": rngs, "param_dtype": param_dtype}
        self.heads = heads
        self.to_q = Linear(channels, channels, use_bias=qkv_bias, **make)
        self.to_k = Linear(channels, channels, use_bias=qkv_bias, **make)
        self.to_v = Linear(channels, channels, use_bias=qkv_bias, **make)
        self.to_out = Linear(channels, channels, **make)

    def __call__(self, x: Float[Array, "n tokens c"], execution: Execution = DEFAULT) -> Float[Array, "n tokens c"]:
        x = execution.by_sequence(x)
        q, k, v = (
            execution.by_sequence(project_heads(linear, x, self.heads)) for linear in (self.to_q, self.to_k, self.to_v)
        )
        return join_heads(self.to_out, execution.by_sequence(dot_product_attention(q, k, v, execution)))
