"""PoseNet: features of drawn skeletons, added after the UNet's first convolution (paper, appendix B)."""

import jax.numpy as jnp
from beartype import beartype
from flax import nnx
from jaxtyping import Array, Float, jaxtyped

from mimicmotion_jax.models.config import PoseNetConfig
from mimicmotion_jax.models.convolutions import Conv
from mimicmotion_jax.models.layers import Init


class PoseNet(nnx.Module):
    """Convolutions with SiLU between, a zero-initialised projection, and a learned scale that starts at 2.

    Convolutions of stride 1 have kernels of 3, those of stride 2 kernels of 4; padding 1 (table 3). The scale is not in
    the paper but in the official release. `stem` and `head` are the two parts of a call: the stem runs once per video,
    the head once per window and step.
    """

    def __init__(self, config: PoseNetConfig, *, rngs: nnx.Rngs, param_dtype: jnp.dtype = jnp.float32):
        init = Init(rngs, param_dtype)
        self.stem_layers = config.stem_layers
        widths = zip((3, *config.channels[:-1]), config.channels, config.strides, strict=True)
        self.conv_layers = nnx.List(
            [Conv(init, cin, cout, 3 if stride == 1 else 4, stride, padding=1) for cin, cout, stride in widths]
        )
        self.final_proj = Conv(init, config.channels[-1], config.out_channels, 1)
        self.scale = nnx.Param(jnp.full((1,), 2.0, param_dtype))
        he_normal = nnx.initializers.he_normal()
        for conv in self.conv_layers:
            conv.kernel.set_value(he_normal(rngs.params(), conv.kernel.shape, param_dtype))
        self.final_proj.kernel.set_value(jnp.zeros_like(self.final_proj.kernel[...]))

    @jaxtyped(typechecker=beartype)
    def __call__(self, pixels: Float[Array, "*n height width 3"]) -> Float[Array, "*n h w c"]:
        """Features at the VAE's resolution, 1/8 of the pixels'.

        Args:
            pixels: the drawn skeleton in [-1, 1].
        """
        return self.head(self.stem(pixels))

    def stem(self, pixels: Float[Array, "*n height width 3"]) -> Float[Array, "*n h w stem"]:
        """Run all but the last layers: most of the work, for a fifth of the features' memory (64 of 320 channels)."""
        x = pixels.astype(self.scale.dtype)
        for conv in self.conv_layers[: self.stem_layers]:
            x = nnx.silu(conv(x))
        return x

    def head(self, x: Float[Array, "*n h w stem"]) -> Float[Array, "*n h w c"]:
        """Run the last layers on the output of `stem`."""
        for conv in self.conv_layers[self.stem_layers :]:
            x = nnx.silu(conv(x))
        return self.final_proj(x) * self.scale[...]
