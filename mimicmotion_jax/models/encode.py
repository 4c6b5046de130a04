"""Encoders of the reference image: CLIP embedding and VAE latents."""

import jax
import jax.numpy as jnp
from beartype import beartype
from jaxtyping import Array, Float, UInt8, jaxtyped

from mimicmotion_jax.models.clip import CLIPImageEncoder, preprocess
from mimicmotion_jax.models.vae import VAE


@jaxtyped(typechecker=beartype)
def to_signed(pixels: UInt8[Array, "*n height width 3"]) -> Float[Array, "*n height width 3"]:
    """Scale uint8 pixels to float32 in [-1, 1]."""
    return pixels.astype(jnp.float32) / 127.5 - 1


@jax.jit
@jaxtyped(typechecker=beartype)
def embed_image(clip: CLIPImageEncoder, image: UInt8[Array, "b height width 3"]) -> Float[Array, "b d"]:
    """Compute the CLIP embedding of the reference image."""
    return clip(preprocess(to_signed(image), clip.config.image_size))


@jax.jit
@jaxtyped(typechecker=beartype)
def encode_image(
    vae: VAE, image: UInt8[Array, "b height width 3"], noise: Float[Array, "b height width 3"]
) -> Float[Array, "b h w c"]:
    """Encode the reference image plus `noise` on its pixels; the mode of the latents, without the scaling factor."""
    return vae.encode(to_signed(image) + noise)[0]
