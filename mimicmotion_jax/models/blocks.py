"""Building blocks of the UNet and the VAE: residual blocks in space and time, and their mixture."""

import einops
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mimicmotion_jax.models.convolutions import Conv, TemporalConv
from mimicmotion_jax.models.execution import DEFAULT, Execution
from mimicmotion_jax.models.layers import GroupNorm, Init, Linear


class ResnetBlock(nnx.Module):
    """Residual block on single frames: norm, SiLU and convolution, twice (diffusers `ResnetBlock2D`)."""

    def __init__(self, init: Init, in_channels: int, out_channels: int, embedding_dim: int | None, epsilon: float):
        self.norm1 = GroupNorm(init, in_channels, epsilon)
        self.conv1 = Conv(init, in_channels, out_channels, 3, padding=1)
        if embedding_dim is not None:
            self.time_emb_proj = Linear(init, embedding_dim, out_channels)
        self.norm2 = GroupNorm(init, out_channels, epsilon)
        self.conv2 = Conv(init, out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = Conv(init, in_channels, out_channels, 1) if in_channels != out_channels else None

    def __call__(
        self, x: Float[Array, "n h w cin"], embedding: Float[Array, "n e"] | None = None
    ) -> Float[Array, "n h w cout"]:
        h = self.conv1(nnx.silu(self.norm1(x)))
        shift = None if embedding is None else self.time_emb_proj(nnx.silu(embedding))[:, None, None]
        h = self.conv2(nnx.silu(self.norm2(h, shift)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class TemporalResnetBlock(nnx.Module):
    """Residual block along frames, whose norms span all frames (diffusers `TemporalResnetBlock`).

    It returns what the block adds to x, times `weight`.
    """

    def __init__(self, init: Init, channels: int, embedding_dim: int | None, epsilon: float):
        in_vae = embedding_dim is None
        self.norm1 = GroupNorm(init, channels, epsilon)
        self.conv1 = TemporalConv(init, channels, channels, in_vae=in_vae)
        if embedding_dim is not None:
            self.time_emb_proj = Linear(init, embedding_dim, channels)
        self.norm2 = GroupNorm(init, channels, epsilon)
        self.conv2 = TemporalConv(init, channels, channels, in_vae=in_vae)

    def __call__(
        self,
        x: Float[Array, "b f p c"],
        embedding: Float[Array, "b e"] | None,
        weight: Float[Array, "1"],
        execution: Execution,
    ) -> Float[Array, "b f p c"]:
        h = self.conv1(nnx.silu(self.norm1(x)), execution)
        shift = None if embedding is None else self.time_emb_proj(nnx.silu(embedding))[:, None, None]
        return self.conv2(nnx.silu(self.norm2(h, shift)), execution, weight)


class AlphaBlender(nnx.Module):
    """Learned mixture of the spatial and the temporal branch (diffusers `AlphaBlender`, strategy "learned").

    out = a spatial + (1 - a) temporal with a = sigmoid(mix_factor), or a = 1 - sigmoid(mix_factor) when `switched`.
    """

    def __init__(self, init: Init, initial: float, *, switched: bool = False):
        self.mix_factor = nnx.Param(jnp.full((1,), initial, init.param_dtype))
        self.switched = switched

    def __call__(self, spatial: Float[Array, "..."], temporal: Float[Array, "..."]) -> Float[Array, "..."]:
        alpha = self.alpha().astype(spatial.dtype)
        return alpha * spatial + (1 - alpha) * temporal

    def alpha(self) -> Float[Array, "1"]:
        """Weight of the spatial branch, in float32."""
        mix = self.mix_factor[...].astype(jnp.float32)
        return jax.nn.sigmoid(-mix if self.switched else mix)


class SpatioTemporalResBlock(nnx.Module):
    """Spatial residual block, temporal residual block, learned mixture (diffusers `SpatioTemporalResBlock`).

    In the UNet the step embedding is added and the mixture starts at 0.5; in the VAE's decoder (`embedding_dim=None`)
    there is no embedding, and the mixture is switched and starts at 0. The temporal block adds to the spatial one, so
    a spatial + (1 - a) (spatial + added) = spatial + (1 - a) added, and no pass over memory mixes them.
    """

    def __init__(
        self,
        init: Init,
        in_channels: int,
        out_channels: int,
        embedding_dim: int | None,
        epsilon: float,
        temporal_epsilon: float | None = None,
    ):
        in_vae = embedding_dim is None
        self.spatial_res_block = ResnetBlock(init, in_channels, out_channels, embedding_dim, epsilon)
        self.temporal_res_block = TemporalResnetBlock(init, out_channels, embedding_dim, temporal_epsilon or epsilon)
        self.time_mixer = AlphaBlender(init, 0.0 if in_vae else 0.5, switched=in_vae)

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
        weight = 1 - self.time_mixer.alpha()
        added = self.temporal_res_block(execution.by_position(spatial), embedding, weight, execution)
        added = execution.by_frame(execution.by_position(added))
        return einops.rearrange(spatial + added, "b f (h w) c -> b f h w c", h=height)
