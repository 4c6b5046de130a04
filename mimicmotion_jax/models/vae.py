"""SVD's VAE (diffusers `AutoencoderKLTemporalDecoder`): an image encoder and a temporal decoder."""

import jax.numpy as jnp
from beartype import beartype
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, jaxtyped

from mimicmotion_jax.models.blocks import ResnetBlock, SpatioTemporalResBlock
from mimicmotion_jax.models.config import VAEConfig
from mimicmotion_jax.models.convolutions import Conv, Downsample, TemporalConv, Upsample
from mimicmotion_jax.models.execution import DEFAULT, Execution
from mimicmotion_jax.models.layers import GroupNorm, Init, SelfAttention

_EPSILON, _TEMPORAL_EPSILON = 1e-6, 1e-5


class SpatialAttention(SelfAttention):
    """Residual self-attention with one head over all positions of an image (diffusers `Attention` in a VAE)."""

    def __init__(self, init: Init, channels: int):
        super().__init__(init, channels, 1, qkv_bias=True)
        self.group_norm = GroupNorm(init, channels, _EPSILON)

    def __call__(self, x: Float[Array, "n h w c"], execution: Execution = DEFAULT) -> Float[Array, "n h w c"]:
        tokens = rearrange(self.group_norm(x), "n h w c -> n (h w) c")
        return x + super().__call__(tokens, execution).reshape(x.shape)


class EncoderStage(nnx.Module):
    """Residual blocks of one resolution (diffusers `DownEncoderBlock2D`)."""

    def __init__(self, init: Init, in_channels: int, channels: int, layers: int, last: bool):
        widths = [(in_channels if n == 0 else channels, channels) for n in range(layers)]
        self.resnets = nnx.List([ResnetBlock(init, *pair, None, _EPSILON) for pair in widths])
        self.downsamplers = nnx.List([] if last else [Downsample(init, channels, (0, 1))])

    def __call__(self, x: Float[Array, "n h w cin"]) -> Float[Array, "n h2 w2 c"]:
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
        return x


class EncoderMid(nnx.Module):
    """Residual block, attention, residual block (diffusers `UNetMidBlock2D`)."""

    def __init__(self, init: Init, channels: int):
        self.resnets = nnx.List([ResnetBlock(init, channels, channels, None, _EPSILON) for _ in range(2)])
        self.attentions = nnx.List([SpatialAttention(init, channels)])

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Encoder(nnx.Module):
    """Encoder of images to mean and log variance of the latents (diffusers `Encoder`)."""

    def __init__(self, init: Init, config: VAEConfig):
        widths = config.block_out_channels
        self.conv_in = Conv(init, config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nnx.List(
            [
                EncoderStage(init, widths[max(i - 1, 0)], width, config.layers_per_block, i == len(widths) - 1)
                for i, width in enumerate(widths)
            ]
        )
        self.mid_block = EncoderMid(init, widths[-1])
        self.conv_norm_out = GroupNorm(init, widths[-1], _EPSILON)
        self.conv_out = Conv(init, widths[-1], 2 * config.latent_channels, 3, padding=1)

    def __call__(self, x: Float[Array, "n height width 3"]) -> Float[Array, "n h w moments"]:
        x = self.conv_in(x)
        for stage in self.down_blocks:
            x = stage(x)
        x = self.mid_block(x)
        return self.conv_out(nnx.silu(self.conv_norm_out(x)))


class DecoderMid(nnx.Module):
    """Residual blocks with one attention layer between them (diffusers `MidBlockTemporalDecoder`)."""

    def __init__(self, init: Init, channels: int, layers: int):
        self.resnets = nnx.List([_temporal_block(init, channels, channels) for _ in range(layers)])
        self.attentions = nnx.List([SpatialAttention(init, channels)])

    def __call__(self, x: Float[Array, "b f h w c"], execution: Execution) -> Float[Array, "b f h w c"]:
        batch = x.shape[0]
        x = self.resnets[0](x, None, execution)
        # The official block zips residual blocks with its single attention layer, so at most two blocks run.
        for attention, resnet in zip(self.attentions, self.resnets[1:], strict=False):
            x = attention(rearrange(x, "b f h w c -> (b f) h w c"))
            x = resnet(rearrange(x, "(b f) h w c -> b f h w c", b=batch), None, execution)
        return x


class DecoderStage(nnx.Module):
    """Spatio-temporal residual blocks of one resolution (diffusers `UpBlockTemporalDecoder`)."""

    def __init__(self, init: Init, in_channels: int, channels: int, layers: int, last: bool):
        self.resnets = nnx.List(
            [_temporal_block(init, in_channels if n == 0 else channels, channels) for n in range(layers)]
        )
        self.upsamplers = nnx.List([] if last else [Upsample(init, channels)])

    def __call__(self, x: Float[Array, "b f h w cin"], execution: Execution) -> Float[Array, "b f h2 w2 c"]:
        for resnet in self.resnets:
            x = resnet(x, None, execution)
        for upsampler in self.upsamplers:
            x = upsampler(x, execution)
        return x


def _temporal_block(init: Init, in_channels: int, channels: int) -> SpatioTemporalResBlock:
    return SpatioTemporalResBlock(init, in_channels, channels, None, _EPSILON, _TEMPORAL_EPSILON)


class TemporalDecoder(nnx.Module):
    """Decoder of the latents of neighbouring frames, with layers along time (diffusers `TemporalDecoder`)."""

    def __init__(self, init: Init, config: VAEConfig):
        widths = config.block_out_channels[::-1]
        layers = config.layers_per_block
        self.conv_in = Conv(init, config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = DecoderMid(init, widths[0], layers)
        self.up_blocks = nnx.List(
            [
                DecoderStage(init, widths[max(i - 1, 0)], width, layers + 1, i == len(widths) - 1)
                for i, width in enumerate(widths)
            ]
        )
        self.conv_norm_out = GroupNorm(init, widths[-1], _EPSILON)
        self.conv_out = Conv(init, widths[-1], config.out_channels, 3, padding=1)
        self.time_conv_out = TemporalConv(init, config.out_channels, config.out_channels, in_vae=True)

    def __call__(self, latents: Float[Array, "b f h w c"], execution: Execution) -> Float[Array, "b f height width 3"]:
        batch = latents.shape[0]
        x = self.mid_block(self.conv_in(latents), execution)
        for stage in self.up_blocks:
            x = stage(x, execution)
        x = nnx.silu(self.conv_norm_out(rearrange(x, "b f h w c -> (b f) h w c")))
        return self.time_conv_out(rearrange(self.conv_out(x), "(b f) h w c -> b f h w c", b=batch), execution)


class VAE(nnx.Module):
    """Autoencoder between pixels in [-1, 1] and latents; the caller applies `config.scaling_factor`."""

    def __init__(self, config: VAEConfig, *, rngs: nnx.Rngs, param_dtype: jnp.dtype = jnp.float32):
        init = Init(rngs, param_dtype, config.norm_num_groups)
        self.config = config
        self.encoder = Encoder(init, config)
        self.quant_conv = Conv(init, 2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.decoder = TemporalDecoder(init, config)

    @jaxtyped(typechecker=beartype)
    def encode(
        self, pixels: Float[Array, "n height width 3"]
    ) -> tuple[Float[Array, "n h w c"], Float[Array, "n h w c"]]:
        """Encode images; return the mean (also the mode) and the log variance of the latents, clipped to [-30, 20]."""
        moments = self.quant_conv(self.encoder(pixels.astype(self.quant_conv.kernel.dtype)))
        mean, logvar = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(logvar, -30.0, 20.0)

    @jaxtyped(typechecker=beartype)
    def decode(
        self, latents: Float[Array, "b f h w c"], execution: Execution = DEFAULT
    ) -> Float[Array, "b f height width 3"]:
        """Decode latents that are already divided by the scaling factor; frames in about [-1, 1]."""
        return self.decoder(latents.astype(self.quant_conv.kernel.dtype), execution)
