"""Transformers of the UNet (diffusers `TransformerSpatioTemporalModel`).

The context is one CLIP token, so the softmax of the cross-attention runs over one key and is 1 for any query: each
layer adds the constant vector to_out(to_v(context)), and its queries, keys and norm need no computation. The constant
is computed once for all denoising steps, by `SpatioTemporalTransformer.conditions`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from mimicmotion_jax.models.blocks import AlphaBlender
from mimicmotion_jax.models.execution import DEFAULT, Execution
from mimicmotion_jax.models.fused_geglu import fused_geglu, supports
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
from mimicmotion_jax.models.parts import in_parts


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

    def __call__(self, x: Float[Array, "n tokens c"], execution: Execution = DEFAULT) -> Float[Array, "n tokens c"]:
        kernel, bias = value(self.proj_in.kernel), value(self.proj_in.bias)
        if execution.fused_geglu and self.proj_in.lora is None and supports(x, kernel, execution.num_devices):
            return self.proj_out(execution.per_device(fused_geglu, shared=2)(x, kernel, bias))
        # Two products that compilers fuse with what follows, instead of a large result that is written and read again.
        kernel, bias = (jnp.split(x, 2, axis=-1) for x in (kernel, bias))
        gate, hidden = (x @ kernel[part] + bias[part] for part in (1, 0))
        if self.proj_in.lora is not None:
            adapted = jnp.split(self.proj_in.lora(x), 2, axis=-1)
            hidden, gate = hidden + adapted[0], gate + adapted[1]
        gate = gelu(gate)
        if execution.inside_part:  # where keeping it costs nothing; the TPU compiler would compute it once per tile
            gate = jax.lax.optimization_barrier(gate)
        return self.proj_out(hidden * gate)


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
        x += self.attn1(self.norm1(x, execution), execution)
        x += cross
        return x + self.ff(self.norm3(x, execution), execution)


class TemporalTransformerBlock(TransformerBlock):
    """Transformer block along frames, with a feed-forward in front (diffusers `TemporalBasicTransformerBlock`)."""

    def __init__(self, init: Init, channels: int, heads: int, context_dim: int):
        super().__init__(init, channels, heads, context_dim)
        self.norm_in = LayerNorm(init, channels)
        self.ff_in = FeedForward(init, channels)

    def __call__(
        self, x: Float[Array, "n frames c"], cross: Float[Array, "n 1 c"], execution: Execution
    ) -> Float[Array, "n frames c"]:
        return super().__call__(x + self.ff_in(self.norm_in(x, execution), execution), cross, execution)


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
        height, channels = x.shape[2], x.shape[-1]
        residual = x = rearrange(x, "b f h w c -> b f (h w) c")
        for layer, (spatial, temporal) in enumerate(zip(conditions.spatial, conditions.temporal, strict=True)):
            within_frames = functools.partial(_within_frames, layer)
            x = in_parts(within_frames, self, spatial, x, execution, axis=1, width=4 * channels)
            along_frames, shared = functools.partial(_along_frames, layer), (self, conditions.frame_position)
            # Without the first constraint the partitioner would move the spatial block's wide activations instead of x.
            x = execution.by_position(execution.by_frame(x))
            x = in_parts(along_frames, shared, temporal, x, execution, axis=2, width=4 * channels)
            x = execution.by_frame(execution.by_position(x))
        return rearrange(residual + x, "b f (h w) c -> b f h w c", h=height)


def _within_frames(
    layer: int,
    transformer: SpatioTemporalTransformer,
    cross: Float[Array, "b c"],
    x: Float[Array, "b f p c"],
    execution: Execution,
) -> Float[Array, "b f p c"]:
    """Spatial block of one layer; before the first one, the transformer's norm and projection as well."""
    batch, frames = x.shape[:2]
    x = rearrange(x, "b f p c -> (b f) p c")
    if layer == 0:
        x = transformer.proj_in(transformer.norm(x))
    x = transformer.transformer_blocks[layer](x, jnp.repeat(cross, frames, axis=0)[:, None], execution)
    return rearrange(x, "(b f) p c -> b f p c", b=batch)


def _along_frames(
    layer: int,
    shared: tuple[SpatioTemporalTransformer, Float[Array, "f c"]],
    cross: Float[Array, "b c"],
    x: Float[Array, "b f p c"],
    execution: Execution,
) -> Float[Array, "b f p c"]:
    """Temporal block of one layer, mixed with its input."""
    transformer, frame_position = shared
    batch, _, positions, _ = x.shape
    h = rearrange(x, "b f p c -> (b p) f c") + frame_position
    h = transformer.temporal_transformer_blocks[layer](h, jnp.repeat(cross, positions, axis=0)[:, None], execution)
    out = transformer.time_mixer(x, rearrange(h, "(b p) f c -> b f p c", b=batch))
    return transformer.proj_out(out) if layer + 1 == len(transformer.transformer_blocks) else out
