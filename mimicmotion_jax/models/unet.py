"""SVD's spatio-temporal UNet with MimicMotion's pose features (diffusers `UNetSpatioTemporalConditionModel`).

What does not change from one denoising step to the next is computed once, by `UNet.conditions`. In particular the
context is one CLIP token, so the softmax of the cross-attention runs over one key and is 1 whatever the query: each
layer adds the constant vector to_out(to_v(context)), and its queries, keys and norm need no computation.
"""

from typing import NamedTuple

import jax.numpy as jnp
from beartype import beartype
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, jaxtyped

from mimicmotion_jax.models.config import NUM_GROUPS, UNetConfig
from mimicmotion_jax.models.execution import DEFAULT, Execution
from mimicmotion_jax.models.layers import (
    AlphaBlender,
    Conv,
    Downsample,
    GroupNorm,
    LayerNorm,
    Linear,
    SelfAttention,
    SpatioTemporalResBlock,
    TimestepEmbedding,
    Upsample,
    gelu,
    sinusoidal_embedding,
)


class TransformerConditions(NamedTuple):
    """Constants of one transformer: cross-attention outputs per layer, and the embedding of the frame's position."""

    spatial: tuple[Float[Array, "b c"], ...]
    temporal: tuple[Float[Array, "b c"], ...]
    frame_position: Float[Array, "f c"]


class UNetConditions(NamedTuple):
    """Everything that a denoising step needs besides latents, noise level and poses; constant over the steps."""

    embedding: Float[Array, "b e"]
    down: tuple[tuple[TransformerConditions, ...], ...]
    mid: tuple[TransformerConditions, ...]
    up: tuple[tuple[TransformerConditions, ...], ...]

    def tile(self, times: int) -> "UNetConditions":
        """The conditions of a batch that repeats this one `times` times, one whole copy after the other."""

        def tile_batch(x: Float[Array, "b c"]) -> Float[Array, "n c"]:
            return jnp.tile(x, (times, 1))

        def tile_transformer(c: TransformerConditions) -> TransformerConditions:
            spatial, temporal = (tuple(map(tile_batch, vectors)) for vectors in (c.spatial, c.temporal))
            return TransformerConditions(spatial, temporal, c.frame_position)

        down, up = (tuple(tuple(map(tile_transformer, block)) for block in part) for part in (self.down, self.up))
        return UNetConditions(tile_batch(self.embedding), down, tuple(map(tile_transformer, self.mid)), up)


class FeedForward(nnx.Module):
    """GEGLU and a linear layer (diffusers `FeedForward`)."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs, param_dtype: jnp.dtype):
        self.proj_in = Linear(channels, 8 * channels, param_dtype=param_dtype, rngs=rngs)
        self.proj_out = Linear(4 * channels, channels, param_dtype=param_dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        # Two products, each with what follows it, instead of one whose result is written whole and read twice.
        kernel, bias = (jnp.split(param[...], 2, axis=-1) for param in (self.proj_in.kernel, self.proj_in.bias))
        gate = gelu(x @ kernel[1] + bias[1])
        return self.proj_out((x @ kernel[0] + bias[0]) * gate)


class CrossAttention(nnx.Module):
    """Attention to a context of a single token: independent of the query (see the head of this file).

    `to_q` and `to_k` are parameters of the checkpoint that no computation needs; they are kept for the way back.
    """

    def __init__(self, channels: int, context_dim: int, *, rngs: nnx.Rngs, param_dtype: jnp.dtype):
        make = {"rngs": rngs, "param_dtype": param_dtype}
        self.to_q = Linear(channels, channels, use_bias=False, **make)
        self.to_k = Linear(context_dim, channels, use_bias=False, **make)
        self.to_v = Linear(context_dim, channels, use_bias=False, **make)
        self.to_out = Linear(channels, channels, **make)

    def __call__(self, context: Float[Array, "b d"]) -> Float[Array, "b c"]:
        return self.to_out(self.to_v(context))


class TransformerBlock(nnx.Module):
    """Self-attention, constant cross-attention, feed-forward (diffusers `BasicTransformerBlock`)."""

    def __init__(self, channels: int, heads: int, context_dim: int, *, rngs: nnx.Rngs, param_dtype: jnp.dtype):
        make = {"rngs": rngs, "param_dtype": param_dtype}
        self.norm1 = LayerNorm(channels, **make)
        self.attn1 = SelfAttention(channels, heads, **make)
        self.norm2 = LayerNorm(channels, **make)
        self.attn2 = CrossAttention(channels, context_dim, **make)
        self.norm3 = LayerNorm(channels, **make)
        self.ff = FeedForward(channels, **make)

    def __call__(
        self, x: Float[Array, "n tokens c"], cross: Float[Array, "n 1 c"], execution: Execution
    ) -> Float[Array, "n tokens c"]:
        x += self.attn1(self.norm1(x), execution)
        x += cross
        return x + self.ff(self.norm3(x))


class TemporalTransformerBlock(TransformerBlock):
    """The same along frames, after a feed-forward of its own (diffusers `TemporalBasicTransformerBlock`)."""

    def __init__(self, channels: int, heads: int, context_dim: int, *, rngs: nnx.Rngs, param_dtype: jnp.dtype):
        super().__init__(channels, heads, context_dim, rngs=rngs, param_dtype=param_dtype)
        self.norm_in = LayerNorm(channels, rngs=rngs, param_dtype=param_dtype)
        self.ff_in = FeedForward(channels, rngs=rngs, param_dtype=param_dtype)

    def __call__(
        self, x: Float[Array, "n frames c"], cross: Float[Array, "n 1 c"], execution: Execution
    ) -> Float[Array, "n frames c"]:
        return super().__call__(x + self.ff_in(self.norm_in(x)), cross, execution)


class SpatioTemporalTransformer(nnx.Module):
    """Spatial and temporal transformer blocks in turn, mixed (diffusers `TransformerSpatioTemporalModel`)."""

    def __init__(
        self,
        channels: int,
        heads: int,
        layers: int,
        context_dim: int,
        *,
        norm_num_groups: int = NUM_GROUPS,
        rngs: nnx.Rngs,
        param_dtype: jnp.dtype,
    ):
        make = {"rngs": rngs, "param_dtype": param_dtype}
        self.norm = GroupNorm(channels, 1e-6, norm_num_groups=norm_num_groups, **make)
        self.proj_in = Linear(channels, channels, **make)
        self.transformer_blocks = nnx.List(
            [TransformerBlock(channels, heads, context_dim, **make) for _ in range(layers)]
        )
        self.temporal_transformer_blocks = nnx.List(
            [TemporalTransformerBlock(channels, heads, context_dim, **make) for _ in range(layers)]
        )
        self.time_pos_embed = TimestepEmbedding(channels, 4 * channels, channels, **make)
        self.time_mixer = AlphaBlender(0.5, param_dtype=param_dtype)
        self.proj_out = Linear(channels, channels, **make)

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


def _transformers(
    count: int,
    channels: int,
    heads: int,
    layers: int,
    context_dim: int,
    *,
    norm_num_groups: int,
    rngs: nnx.Rngs,
    param_dtype: jnp.dtype,
) -> nnx.List:
    make = {"norm_num_groups": norm_num_groups, "rngs": rngs, "param_dtype": param_dtype}
    return nnx.List([SpatioTemporalTransformer(channels, heads, layers, context_dim, **make) for _ in range(count)])


class Stage(nnx.Module):
    """Residual blocks of one resolution, each followed by a transformer where the stage has any.

    The parts are given by `UNet`, whose plan decides the widths; `downsamplers` and `upsamplers` hold one or none.
    """

    def __init__(self, resnets: nnx.List, attentions: nnx.List, *, down: Downsample | None, up: Upsample | None):
        self.resnets = resnets
        self.attentions = attentions
        self.downsamplers = nnx.List([down] if down else [])
        self.upsamplers = nnx.List([up] if up else [])

    def conditions(self, context: Float[Array, "b d"], num_frames: int) -> tuple[TransformerConditions, ...]:
        return tuple(attention.conditions(context, num_frames) for attention in self.attentions)

    def layer(
        self,
        index: int,
        x: Float[Array, "b f h w cin"],
        embedding: Float[Array, "b e"],
        conditions: tuple[TransformerConditions, ...],
        execution: Execution,
    ) -> Float[Array, "b f h w cout"]:
        x = execution.run(self.resnets[index], x, embedding)
        return execution.run(self.attentions[index], x, conditions[index]) if self.attentions else x


class MidBlock(nnx.Module):
    """Residual block, transformer, residual block (diffusers `UNetMidBlockSpatioTemporal`)."""

    def __init__(
        self,
        channels: int,
        heads: int,
        layers: int,
        context_dim: int,
        embedding_dim: int,
        *,
        norm_num_groups: int,
        rngs: nnx.Rngs,
        param_dtype: jnp.dtype,
    ):
        make = {"norm_num_groups": norm_num_groups, "rngs": rngs, "param_dtype": param_dtype}
        self.attentions = _transformers(1, channels, heads, layers, context_dim, **make)
        self.resnets = nnx.List(
            [SpatioTemporalResBlock(channels, channels, embedding_dim, 1e-5, **make) for _ in range(2)]
        )

    def conditions(self, context: Float[Array, "b d"], num_frames: int) -> tuple[TransformerConditions, ...]:
        return tuple(attention.conditions(context, num_frames) for attention in self.attentions)

    def __call__(
        self,
        x: Float[Array, "b f h w c"],
        embedding: Float[Array, "b e"],
        conditions: tuple[TransformerConditions, ...],
        execution: Execution,
    ) -> Float[Array, "b f h w c"]:
        x = execution.run(self.resnets[0], x, embedding)
        x = execution.run(self.attentions[0], x, conditions[0])
        return execution.run(self.resnets[1], x, embedding)


class UNet(nnx.Module):
    """v-prediction network F of the preconditioned denoiser; see `diffusion.edm` for how it is used.

    Args:
        config: sizes; any official `config.json`.
        rngs: key of the random initialisation.
        param_dtype: dtype of the parameters, and so of the computation.
    """

    def __init__(self, config: UNetConfig, *, rngs: nnx.Rngs, param_dtype: jnp.dtype = jnp.float32):
        make = {"rngs": rngs, "param_dtype": param_dtype}
        self.config = config
        width = config.block_out_channels[0]
        embedding_dim = 4 * width
        self.conv_in = Conv(config.in_channels, width, 3, padding=1, **make)
        self.time_embedding = TimestepEmbedding(width, embedding_dim, **make)
        self.add_embedding = TimestepEmbedding(config.projection_class_embeddings_input_dim, embedding_dim, **make)
        self.down_blocks = nnx.List(_down_stages(config, embedding_dim, **make))
        self.mid_block = MidBlock(
            config.block_out_channels[-1],
            config.blocks("num_attention_heads")[-1],
            config.blocks("transformer_layers_per_block")[-1],
            config.context_dim,
            embedding_dim,
            norm_num_groups=config.norm_num_groups,
            **make,
        )
        self.up_blocks = nnx.List(_up_stages(config, embedding_dim, **make))
        self.conv_norm_out = GroupNorm(width, 1e-5, norm_num_groups=config.norm_num_groups, **make)
        self.conv_out = Conv(width, config.out_channels, 3, padding=1, **make)

    @jaxtyped(typechecker=beartype)
    def conditions(
        self, context: Float[Array, "b d"], time_ids: Float[Array, "b 3"], num_frames: int
    ) -> UNetConditions:
        """Constants of the denoising steps.

        Args:
            context: CLIP embedding of the reference image (zeros in the unconditional branch).
            time_ids: (fps - 1, motion bucket, noise augmentation strength), as SVD was trained.
            num_frames: frames per window.
        """
        context = context.astype(self.conv_in.kernel.dtype)
        ids = sinusoidal_embedding(time_ids, self.config.addition_time_embed_dim)
        return UNetConditions(
            embedding=self.add_embedding(rearrange(ids, "b n d -> b (n d)")),
            down=tuple(stage.conditions(context, num_frames) for stage in self.down_blocks),
            mid=self.mid_block.conditions(context, num_frames),
            up=tuple(stage.conditions(context, num_frames) for stage in self.up_blocks),
        )

    @jaxtyped(typechecker=beartype)
    def __call__(
        self,
        sample: Float[Array, "b f h w cin"],
        c_noise: Float[Array, " b"],
        conditions: UNetConditions,
        pose_features: Float[Array, "b f h w c0"] | None = None,
        execution: Execution = DEFAULT,
    ) -> Float[Array, "b f h w cout"]:
        """Predict v.

        Args:
            sample: c_in * latents and the reference latents, concatenated on channels; heights and widths multiples
                of `config.downscale`.
            c_noise: 0.25 ln(sigma), one per sample.
            conditions: from `conditions`, made for the same number of frames.
            pose_features: PoseNet's output, added after the first convolution (paper, section 3.3); None adds nothing.
            execution: how the layers are laid over devices, and whether the backward pass recomputes them.
        """
        dtype = self.conv_in.kernel.dtype
        embedding = self.time_embedding(sinusoidal_embedding(c_noise, self.config.block_out_channels[0]))
        embedding += conditions.embedding
        x = execution.by_frame(self.conv_in(sample.astype(dtype)))
        if pose_features is not None:
            x += pose_features.astype(dtype)

        skips = [x]
        for stage, constants in zip(self.down_blocks, conditions.down, strict=True):
            for index in range(len(stage.resnets)):
                x = stage.layer(index, x, embedding, constants, execution)
                skips.append(x)
            for downsampler in stage.downsamplers:
                x = execution.by_frame(downsampler(x))
                skips.append(x)
        x = self.mid_block(x, embedding, conditions.mid, execution)
        for stage, constants in zip(self.up_blocks, conditions.up, strict=True):
            for index in range(len(stage.resnets)):
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                x = stage.layer(index, x, embedding, constants, execution)
            for upsampler in stage.upsamplers:
                x = execution.by_frame(upsampler(x))

        batch = x.shape[0]
        x = nnx.silu(self.conv_norm_out(rearrange(x, "b f h w c -> (b f) h w c")))
        return rearrange(self.conv_out(x), "(b f) h w c -> b f h w c", b=batch)


def _down_stages(config: UNetConfig, embedding_dim: int, *, rngs: nnx.Rngs, param_dtype: jnp.dtype) -> list[Stage]:
    make = {"rngs": rngs, "param_dtype": param_dtype}
    normed = make | {"norm_num_groups": config.norm_num_groups}
    stages = []
    channels = config.block_out_channels[0]
    for i, kind in enumerate(config.down_block_types):
        in_channels, channels = channels, config.block_out_channels[i]
        attends, last = kind.startswith("CrossAttn"), i == len(config.down_block_types) - 1
        count = config.blocks("layers_per_block")[i]
        # The two kinds of block differ in epsilon in the official code, and so in the released weights' behaviour.
        epsilon = 1e-6 if attends else 1e-5
        widths = [(in_channels if n == 0 else channels, channels) for n in range(count)]
        stages.append(
            Stage(
                nnx.List([SpatioTemporalResBlock(*pair, embedding_dim, epsilon, **normed) for pair in widths]),
                _transformers(count if attends else 0, channels, *_attention_plan(config, i), **normed),
                down=None if last else Downsample(channels, (1, 1), **make),
                up=None,
            )
        )
    return stages


def _up_stages(config: UNetConfig, embedding_dim: int, *, rngs: nnx.Rngs, param_dtype: jnp.dtype) -> list[Stage]:
    make = {"rngs": rngs, "param_dtype": param_dtype}
    normed = make | {"norm_num_groups": config.norm_num_groups}
    stages = []
    widths = config.block_out_channels[::-1]
    channels = widths[0]
    for i, kind in enumerate(config.up_block_types):
        previous, channels, skip = channels, widths[i], widths[min(i + 1, len(widths) - 1)]
        level, last = len(widths) - 1 - i, i == len(widths) - 1
        count = config.blocks("layers_per_block")[level] + 1
        # Each block takes a skip beside what flows: the last one's comes from the next finer resolution.
        flow = [previous if n == 0 else channels for n in range(count)]
        skips = [skip if n == count - 1 else channels for n in range(count)]
        stages.append(
            Stage(
                nnx.List(
                    [
                        SpatioTemporalResBlock(a + b, channels, embedding_dim, 1e-6, **normed)
                        for a, b in zip(flow, skips, strict=True)
                    ]
                ),
                _transformers(
                    count if kind.startswith("CrossAttn") else 0, channels, *_attention_plan(config, level), **normed
                ),
                down=None,
                up=None if last else Upsample(channels, **make),
            )
        )
    return stages


def _attention_plan(config: UNetConfig, level: int) -> tuple[int, int, int]:
    heads = config.blocks("num_attention_heads")[level]
    return heads, config.blocks("transformer_layers_per_block")[level], config.context_dim
