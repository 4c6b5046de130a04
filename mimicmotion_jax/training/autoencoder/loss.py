"""Loss of the VAE: close and sharp reconstructions, above all of hands, from latents near the standard normal.

With d the error of the reconstruction in [-1, 1] and w the weight of a pixel (`hand_weight` in hand regions, else 1):

    loss = mean w |d|  +  squared_weight * mean w d^2  +  gradient_weight * G(d)
           +  kl_weight * mean KL( N(mean, variance) || N(0, 1) )

The square penalises large but rare errors, such as a dress of the wrong colour. G is the mean over a pyramid of halved
pictures of mean w |dx d| + mean w |dy d|, differences of neighbouring pixels: a blurred edge adds to it at every scale,
a wrong brightness nothing.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
from beartype import beartype
from einops import rearrange, repeat
from flax import nnx
from jaxtyping import Array, Bool, Float, UInt8, UInt32, jaxtyped
from pydantic import Field

from mimicmotion_jax.config import config_dataclass
from mimicmotion_jax.models import encode
from mimicmotion_jax.models.vae import VAE
from mimicmotion_jax.runtime.seeds import fold_seed

SCALES = 3
"""Number of pictures in the pyramid: full, half and quarter size."""

Metrics = dict[str, Float[Array, ""]]


@config_dataclass
class AutoencoderLossConfig:
    """Weights of the terms."""

    hand_weight: Annotated[float, Field(ge=1)] = 4.0
    """Weight of errors inside hand regions."""
    squared_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of squared errors."""
    gradient_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of errors in differences of neighbouring pixels."""
    kl_weight: Annotated[float, Field(ge=0)] = 1e-6
    """Weight of the mean KL divergence of a latent number."""


@jaxtyped(typechecker=beartype)
def draw_noise(seed: int, index: UInt32[Array, " b"], shape: tuple[int, ...]) -> Float[Array, "b ..."]:
    """Draw standard normal noise of `shape` for each sample from the seed and the sample's number alone."""
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(fold_seed(seed)), i))(index)
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


@jaxtyped(typechecker=beartype)
def autoencoder_loss(
    vae: VAE,
    frames: UInt8[Array, "b f height width 3"],
    hand_mask: Bool[Array, "b f h w"],
    noise: Float[Array, "b f h w c"],
    config: AutoencoderLossConfig,
) -> tuple[Float[Array, ""], Metrics]:
    """Compute the loss of a batch of clips, and its parts before they are weighted.

    Args:
        vae: encodes frame by frame, decodes clips.
        frames: RGB, 0 to 255.
        hand_mask: True in hand regions, at the size of latents.
        noise: standard normal; it draws latents from the encoder's distribution.
        config: weights.

    Returns:
        The loss, and `l1_hands`, `l1_elsewhere`, `gradient` and `kl`; `l1_hands` is 0 without hands.
    """
    batch = len(frames)
    pixels = encode.to_signed(frames)
    moments = vae.encode(rearrange(pixels, "b f h w c -> (b f) h w c"))
    mean, logvar = (rearrange(moment, "(b f) h w c -> b f h w c", b=batch) for moment in moments)
    error = vae.decode(mean + jnp.exp(logvar / 2) * noise) - pixels

    size = vae.config.downscale
    hands = repeat(hand_mask, "b f h w -> b f (h m) (w n) 1", m=size, n=size)
    weights = jnp.where(hands, config.hand_weight, 1.0)
    gradient, kl = gradient_error(error, weights), kl_divergence(mean, logvar)
    closeness = jnp.mean(weights * (jnp.abs(error) + config.squared_weight * error**2))
    loss = closeness + config.gradient_weight * gradient + config.kl_weight * kl
    parts = {
        "l1_hands": _mean_where(jnp.abs(error), hands),
        "l1_elsewhere": _mean_where(jnp.abs(error), ~hands),
        "gradient": gradient,
        "kl": kl,
    }
    return loss, parts


@jaxtyped(typechecker=beartype)
def gradient_error(error: Float[Array, "b f height width c"], weights: Float[Array, "b f height width 1"]) -> Array:
    """Compute G above; halving a side of odd length drops its last row or column."""
    total = jnp.zeros(())
    for scale in range(SCALES):
        if scale:
            error, weights = (nnx.avg_pool(x, (2, 2), (2, 2)) for x in (error, weights))
        total += _differences(error, weights, axis=2) + _differences(error, weights, axis=3)
    return total / SCALES


def _differences(error: Float[Array, "b f h w c"], weights: Float[Array, "b f h w 1"], axis: int) -> Float[Array, ""]:
    """Mean absolute difference of neighbours along an axis, weighted by the mean of their weights."""
    low, high = (jax.lax.slice_in_dim(weights, *ends, axis=axis) for ends in ((0, weights.shape[axis] - 1), (1, None)))
    return jnp.mean((low + high) / 2 * jnp.abs(jnp.diff(error, axis=axis)))


def kl_divergence(mean: Float[Array, "*latents"], logvar: Float[Array, "*latents"]) -> Float[Array, ""]:
    """Compute KL(N(mean, exp(logvar)) || N(0, 1)), mean over latents, nats (Kingma and Welling 2014, appendix B)."""
    return 0.5 * jnp.mean(mean**2 + jnp.exp(logvar) - 1 - logvar)


def _mean_where(x: Float[Array, "b f h w c"], mask: Bool[Array, "b f h w 1"]) -> Float[Array, ""]:
    return jnp.sum(x * mask) / jnp.maximum(jnp.sum(mask) * x.shape[-1], 1)
