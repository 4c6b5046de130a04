"""SVD's spatio-temporal UNet with MimicMotion's pose features (diffusers `UNetSpatioTemporalConditionModel`).

Everything that is the same in all denoising steps is computed once, by `UNet.conditions`.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
from beartype import beartype
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int, jaxtyped

from mimicmotion_jax.models.blocks import SpatioTemporalResBlock
from mimicmotion_jax.models.config import UNetConfig
from mimicmotion_jax.models.convolutions import Conv, Downsample, Upsample
from mimicmotion_jax.models.execution import DEFAULT, Execution
from mimicmotion_jax.models.layers import GroupNorm, Init, TimestepEmbedding, sinusoidal_embedding
from mimicmotion_jax.models.transformer import SpatioTemporalTransformer, TransformerConditions


class UNetConditions(NamedTuple):
    """Inputs of the UNet that are constant over the denoising steps."""

    embedding: Float[Array, "b e"]
    down: tuple[tuple[TransformerConditions, ...], ...]
    mid: tuple[TransformerConditions, ...]
    up: tuple[tuple[TransformerConditions, ...], ...]

    def tile(self, times: int) -> "UNetConditions":
        """Repeat the batch `times` times, as `jnp.tile` does along the first axis."""

        def tile_batch(x: Float[Array, "b c"]) -> Float[Array, "n c"]:
            return jnp.tile(x, (times, 1))

        return self._map_batch(tile_batch)

    def part(self, index: Int[Array, ""], count: int) -> "UNetConditions":
        """Take the part `index` of the batch in `count` equal parts; the index may be traced."""
        return self._map_batch(lambda x: rearrange(x, "(n b) c -> n b c", n=count)[index])

    def _map_batch(self, function: Callable[[Float[Array, "b c"]], Float[Array, "n c"]]) -> "UNetConditions":
        def map_transformer(c: TransformerConditions) -> TransformerConditions:
            spatial, temporal = (tuple(map(function, vectors)) for vectors in (c.spatial, c.temporal))
            return TransformerConditions(spatial, temporal, c.frame_position)

        down, up = (tuple(tuple(map(map_transformer, block)) for block in part) for part in (self.down, self.up))
        return UNetConditions(function(self.embedding), down, tuple(map(map_transformer, self.mid)), up)


class Stage(nnx.Module):
    """Residual blocks of one resolution, each followed by a transformer in stages with cross-attention.

    `UNet` decides the widths and passes the layers in; `downsamplers` and `upsamplers` hold one layer or none.
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

    def __init__(self, init: Init, config: UNetConfig, embedding_dim: int):
        level = len(config.block_out_channels) - 1
        channels = config.block_out_channels[level]
        self.attentions = _transformers(init, config, level, 1)
        self.resnets = nnx.List(
            [SpatioTemporalResBlock(init, channels, channels, embedding_dim, 1e-5) for _ in range(2)]
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
    """Network F of the preconditioned denoiser, which predicts v (see `diffusion.edm`).

    Args:
        config: sizes, which any official `config.json` gives (`UNetConfig.from_official`).
        rngs: key of the random initialisation.
        param_dtype: dtype of the parameters, and so of the computation.
    """

    def __init__(self, config: UNetConfig, *, rngs: nnx.Rngs, param_dtype: jnp.dtype = jnp.float32):
        init = Init(rngs, param_dtype, config.norm_num_groups)
        self.config = config
        width = config.block_out_channels[0]
        embedding_dim = 4 * width
        self.conv_in = Conv(init, config.in_channels, width, 3, padding=1)
        self.time_embedding = TimestepEmbedding(init, width, embedding_dim)
        self.add_embedding = TimestepEmbedding(init, config.projection_class_embeddings_input_dim, embedding_dim)
        self.down_blocks = nnx.List(_down_stages(init, config, embedding_dim))
        self.mid_block = MidBlock(init, config, embedding_dim)
        self.up_blocks = nnx.List(_up_stages(init, config, embedding_dim))
        self.conv_norm_out = GroupNorm(init, width, 1e-5)
        self.conv_out = Conv(init, width, config.out_channels, 3, padding=1)

    @jaxtyped(typechecker=beartype)
    def conditions(
        self, context: Float[Array, "b d"], time_ids: Float[Array, "b 3"], num_frames: int
    ) -> UNetConditions:
        """Compute the constants of the denoising steps.

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
        """Predict v; arguments as for `predict`."""
        return self.predict(sample, c_noise, conditions, pose_features, execution)[0]

    @jaxtyped(typechecker=beartype)
    def predict(
        self,
        sample: Float[Array, "b f h w cin"],
        c_noise: Float[Array, " b"],
        conditions: UNetConditions,
        pose_features: Float[Array, "b f h w c0"] | None = None,
        execution: Execution = DEFAULT,
        *,
        depth: int = 1,
        deep: Float[Array, "b f h2 w2 c2"] | None = None,
    ) -> tuple[Float[Array, "b f h w cout"], Float[Array, "b f h2 w2 c2"]]:
        """Predict v; also return the features that enter the last layers from below, to be given as `deep` later.

        With `deep`, which comes from another noise level, only those layers and the ones whose skips they take are
        computed (DeepCache, Ma et al. 2024, section 3.2).

        Args:
            sample: c_in * latents and the reference latents, concatenated on channels; heights and widths multiples
                of `config.downscale`.
            c_noise: 0.25 ln(sigma), one per sample.
            conditions: from `conditions`, made for the same number of frames.
            pose_features: PoseNet's output, added after the first convolution (paper, section 3.3); None adds nothing.
            execution: sharding of activations, and rematerialisation.
            depth: number of last layers, 1 to `config.num_up_layers`.
            deep: what an earlier call with the same depth returned; None computes everything.
        """
        dtype = self.conv_in.kernel.dtype
        embedding = self.time_embedding(sinusoidal_embedding(c_noise, self.config.block_out_channels[0]))
        embedding += conditions.embedding
        x = execution.by_frame(self.conv_in(sample.astype(dtype)))
        if pose_features is not None:
            x += pose_features.astype(dtype)

        way_down = self._way_down(x, embedding, conditions, execution)  # computed as far as it is read
        skips = list(way_down if deep is None else itertools.islice(way_down, depth))
        x = self.mid_block(skips[-1], embedding, conditions.mid, execution) if deep is None else deep
        deep = x
        layers = list(self._up_layers(conditions))
        for upsamplers, stage, index, constants in layers[-len(skips) :]:
            if len(skips) == depth:
                deep = x
            for upsampler in upsamplers:
                x = execution.by_frame(upsampler(x, execution))
            x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = stage.layer(index, x, embedding, constants, execution)

        batch = x.shape[0]
        x = nnx.silu(self.conv_norm_out(rearrange(x, "b f h w c -> (b f) h w c")))
        return rearrange(self.conv_out(x), "(b f) h w c -> b f h w c", b=batch), deep

    def _way_down(
        self, x: Float[Array, "b f h w c"], embedding: Float[Array, "b e"], conditions: UNetConditions, run: Execution
    ) -> Iterator[Float[Array, "b f h2 w2 c2"]]:
        """Skips from the finest to the coarsest, `x` first."""
        yield x
        for stage, constants in zip(self.down_blocks, conditions.down, strict=True):
            for index in range(len(stage.resnets)):
                x = stage.layer(index, x, embedding, constants, run)
                yield x
            for downsampler in stage.downsamplers:
                x = run.by_frame(downsampler(x))
                yield x

    def _up_layers(
        self, conditions: UNetConditions
    ) -> Iterator[tuple[Iterable[Upsample], Stage, int, tuple[TransformerConditions, ...]]]:
        """Layers of the way up: upsamplers before it, stage, index in the stage, constants."""
        upsamplers: Iterable[Upsample] = ()
        for stage, constants in zip(self.up_blocks, conditions.up, strict=True):
            for index in range(len(stage.resnets)):
                yield upsamplers, stage, index, constants
                upsamplers = ()
            upsamplers = stage.upsamplers


def _down_stages(init: Init, config: UNetConfig, embedding_dim: int) -> list[Stage]:
    stages = []
    channels = config.block_out_channels[0]
    for level, kind in enumerate(config.down_block_types):
        in_channels, channels = channels, config.block_out_channels[level]
        attends, last = kind.startswith("CrossAttn"), level == len(config.down_block_types) - 1
        count = config.blocks("layers_per_block")[level]
        # The official code uses different epsilons in the two kinds of block, and the released weights expect them.
        epsilon = 1e-6 if attends else 1e-5
        widths = [(in_channels if n == 0 else channels, channels) for n in range(count)]
        stages.append(
            Stage(
                nnx.List([SpatioTemporalResBlock(init, *pair, embedding_dim, epsilon) for pair in widths]),
                _transformers(init, config, level, count if attends else 0),
                down=None if last else Downsample(init, channels, (1, 1)),
                up=None,
            )
        )
    return stages


def _up_stages(init: Init, config: UNetConfig, embedding_dim: int) -> list[Stage]:
    stages = []
    widths = config.block_out_channels[::-1]
    channels = widths[0]
    for i, kind in enumerate(config.up_block_types):
        previous, channels, skip = channels, widths[i], widths[min(i + 1, len(widths) - 1)]
        level, last = len(widths) - 1 - i, i == len(widths) - 1
        count = config.blocks("layers_per_block")[level] + 1
        # Each block's input is concatenated with a skip; the last block's skip comes from the next finer resolution.
        flow = [previous if n == 0 else channels for n in range(count)]
        skips = [skip if n == count - 1 else channels for n in range(count)]
        joined = [a + b for a, b in zip(flow, skips, strict=True)]
        stages.append(
            Stage(
                nnx.List([SpatioTemporalResBlock(init, width, channels, embedding_dim, 1e-6) for width in joined]),
                _transformers(init, config, level, count if kind.startswith("CrossAttn") else 0),
                down=None,
                up=None if last else Upsample(init, channels),
            )
        )
    return stages


def _transformers(init: Init, config: UNetConfig, level: int, count: int) -> nnx.List:
    """Build `count` transformers of the given resolution level; 0 is the finest."""
    plan = (
        config.block_out_channels[level],
        config.blocks("num_attention_heads")[level],
        config.blocks("transformer_layers_per_block")[level],
        config.context_dim,
    )
    return nnx.List([SpatioTemporalTransformer(init, *plan) for _ in range(count)])
