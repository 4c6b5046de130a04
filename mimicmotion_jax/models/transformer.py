"""Transformers of the UNet (diffusers `TransformerSpatioTemporalModel`).

The context is one CLIP token, so the softmax of the cross-attention runs over one key and is 1 for any query: each
layer adds the constant vector to_out(to_v(context)), and its queries, keys and norm need no computation. The constant
is computed once for all denoising steps, by `SpatioTemporalTransformer.conditions`.
"""

from typing import NamedTuple

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from mimicmotion_jax.models.blocks import AlphaBlender
from mimicmotion_jax.models.execution import Execution
from mimicmotion_jax.models.layers import (
    GroupNorm,
    Init,
    LayerNorm,
    Linear,
    SelfAttention,
    TimestepEmbedding,
    gelu,
    sinusoidal_embedding,
    value,
)


class TransformerConditions(NamedTuple):
    """Constants of one transformer: cross-attention outputs per layer, and embeddings of the frames' positions."""

    spatial: tuple[Float[Array, "b c"], ...]
    temporal: tuple[Float[Array, "b c"], ...]
    frame_position: Float[Array, "f c"]


class FeedForward(nnx.Module):
    """GEGLU followed by a linear layer (diffusers `FeedForward`)."""

    def __init__(self, init: Init, channels: int):
        self.proj_in = Linear(init, channels, 8 * channels)
        self.proj_out = Linear(init, 4 * channels, channels)

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        # Two products that compilers fuse with what follows, instead of a large result that is written and read again.
        kernel, bias = (jnp.split(x, 2, axis=-1) for x in (value(self.proj_in.kernel), value(self.proj_in.bias)))
        gate, hidden = (x @ kernel[part] + bias[part] for part in (1, 0))
        if self.proj_in.lora is not None:
            adapted = jnp.split(self.proj_in.lora(x), 2, axis=-1)
            hidden, gate = hidden + adapted[0], gate + adapted[1]
        return self.proj_out(hidden * gelu(gate))


class CrossAttention(nnx.Module):
    """Cross-attention to a single token, independent of the query (see the module's docstring).

    No computation uses `to_q` and `to_k`; they are kept so that checkpoints can be converted back to PyTorch.
    """

    def __init__(self, init: Init, channels: int, context_dim: int):
        self.to_q = Linear(init, channels, channels, use_bias=False)
        self.to_k = Linear(init, context_dim, channels, use_bias=False)
        self.to_v = Linear(init, context_dim, channels, use_bias=False)
        self.to_out = Linear(init, channels, channels)

    def __call__(self, context: Float[Array, "b d"]) -> Float[Array, "b c"]:
        return self.to_out(self.to_v(context))


class TransformerBlock(nnx.Module):
    """Self-attention, constant cross-attention, feed-forward (diffusers `BasicTransformerBlock`)."""

    def __init__(self, init: Init, channels: int, heads: int, context_dim: int):
        self.norm1 = LayerNorm(init, channels)
        self.attn1 = SelfAttention(init, channels, heads)
        self.norm2 = LayerNorm(init, channels)
        self.attn2 = CrossAttention(init, channels, context_dim)
        self.norm3 = LayerNorm(init, channels)
        self.ff = FeedForward(init, channels)

    def __call__(
        self, x: Float[Array, "n tokens c"], cross: Float[Array, "n 1 c"], execution: Execution
    ) -> Float[Array, "n tokens c"]:
        x += self.attn1(self.norm1(x), execution)
        x += cross
        return x + self.ff(self.norm3(x))


class TemporalTransformerBlock(TransformerBlock):
    """Transformer block along frames, with a feed-forward in front (diffusers `TemporalBasicTransformerBlock`)."""

    def __init__(self, init: Init, channels: int, heads: int, context_dim: int):
        super().__init__(init, channels, heads, context_dim)
        self.norm_in = LayerNorm(init, channels)
        self.ff_in = FeedForward(init, channels)

    def __call__(
        self, x: Float[Array, "n frames c"], cross: Float[Array, "n 1 c"], execution: Execution
    ) -> Float[Array, "n frames c"]:
        return super().__call__(x + self.ff_in(self.norm_in(x)), cross, execution)


class SpatioTemporalTransformer(nnx.Module):
    """Spatial and temporal transformer blocks, mixed after each pair (diffusers `TransformerSpatioTemporalModel`)."""

    def __init__(self, init: Init, channels: int, heads: int, layers: int, context_dim: int):
        self.norm = GroupNorm(init, channels, 1e-6)
        self.proj_in = Linear(init, channels, channels)
        self.transformer_blocks = nnx.List(
            [TransformerBlock(init, channels, heads, context_dim) for _ in range(layers)]
        )
        self.temporal_transformer_blocks = nnx.List(
            [TemporalTransformerBlock(init, channels, heads, context_dim) for _ in range(layers)]
        )
        self.time_pos_embed = TimestepEmbedding(init, channels, 4 * channels, channels)
        self.time_mixer = AlphaBlender(init, 0.5)
        self.proj_out = Linear(init, channels, channels)

    def conditions(self, context: Float[Array, "b d"], num_frames: int) -> TransformerConditions:
        frames = sinusoidal_embedding(jnp.arange(num_frames), self.proj_in.in_features)
        return TransformerConditions(
            spatial=tuple(block.attn2(context) for block in self.transformer_blocks),
            temporal=tuple(block.attn2(context) for block in self.temporal_transformer_blocks),
            frame_position=self.time_pos_embed(frames),
        )

    def __call__(
        self, x: Float[Array, "b f h w c"], conditions: TransformerConditions, execution: Execution
    ) -> Float[Array, "b f h w c"]:
        batch, frames, height, width, _ = x.shape
        residual = x
        x = self.norm(rearrange(x, "b f h w c -> (b f) (h w) c"))
        x = self.proj_in(x)
        for layer, (block, temporal) in enumerate(
            zip(self.transformer_blocks, self.temporal_transformer_blocks, strict=True)
        ):
            spatial_cross = jnp.repeat(conditions.spatial[layer], frames, axis=0)[:, None]
            x = block(x, spatial_cross, execution)  # [(B F), (H W), C]
            temporal_cross = jnp.repeat(conditions.temporal[layer], height * width, axis=0)[:, None]
            h = execution.by_position(rearrange(x, "(b f) p c -> b f p c", b=batch))
            h = rearrange(h, "b f p c -> (b p) f c") + conditions.frame_position
            h = temporal(h, temporal_cross, execution)  # [(B H W), F, C]
            h = execution.by_frame(execution.by_position(rearrange(h, "(b p) f c -> b f p c", b=batch)))
            x = self.time_mixer(x, rearrange(h, "b f p c -> (b f) p c"))
        x = self.proj_out(x)
        return residual + rearrange(x, "(b f) (h w) c -> b f h w c", b=batch, h=height)
