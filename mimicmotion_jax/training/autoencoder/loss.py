"""What the VAE is trained for: reconstructions that are close and sharp, above all hands, from latents that are tame.

With d the error of the reconstruction in [-1, 1] and w the weight of a pixel (`hand_weight` in hand regions, else 1):

    loss = mean w |d|  +  squared_weight * mean w d^2  +  gradient_weight * G(d)
           +  kl_weight * mean KL( N(mean, variance) || N(0, 1) )

The square is for what is rare and far off: a dress of the wrong colour. G is the mean over a pyramid of halved
pictures of mean w |dx d| + mean w |dy d|, differences of neighbouring pixels: an edge that is blurred costs there at
every scale, while a wrong brightness costs nothing.
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

SCALES = 3
"""Pictures in the pyramid: of full, half and quarter size."""

Metrics = dict[str, Float[Array, ""]]


@config_dataclass
class AutoencoderLossConfig:
    """Weights of the terms."""

    hand_weight: Annotated[float, Field(ge=1)] = 4.0
    squared_weight: Annotated[float, Field(ge=0)] = 0.0
    gradient_weight: Annotated[float, Field(ge=0)] = 1.0
    kl_weight: Annotated[float, Field(ge=0)] = 1e-6


@jaxtyped(typechecker=beartype)
def draw_noise(seed: int, index: UInt32[Array, " b"], shape: tuple[int, ...]) -> Float[Array, "b ..."]:
    """Standard normal noise of `shape` for each sample, a function of the seed and the sample's number."""
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(index)
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


@jaxtyped(typechecker=beartype)
def autoencoder_loss(
    vae: VAE,
    frames: UInt8[Array, "b f height width 3"],
    hand_mask: Bool[Array, "b f h w"],
    noise: Float[Array, "b f h w c"],
    config: AutoencoderLossConfig,
) -> tuple[Float[Array, ""], Metrics]:
    """The loss of a batch of clips, and its parts before they are weighted.

    Args:
        vae: encodes frame by frame, decodes clips.
        frames: RGB, 0 to 255.
        hand_mask: where hands are, in latents.
        noise: standard normal; latents are drawn with it from the distribution that the encoder gives.
        config: weights.

    Returns:
        The loss, and `l1_hands`, `l1_elsewhere`, `gradient` and `kl`; hands that are not there have an error of 0.
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
    """G above: what is left of a row or column of odd length is cut off where the pyramid halves it."""
    total = jnp.zeros(())
    for scale in range(SCALES):
        if scale:
            error, weights = (nnx.avg_pool(x, (2, 2), (2, 2)) for x in (error, weights))
        total += _differences(error, weights, axis=2) + _differences(error, weights, axis=3)
    return total / SCALES


def _differences(error: Float[Array, "b f h w c"], weights: Float[Array, "b f h w 1"], axis: int) -> Float[Array, ""]:
    """Mean of those between neighbours, whose weights are averaged."""
    low, high = (jax.lax.slice_in_dim(weights, *ends, axis=axis) for ends in ((0, weights.shape[axis] - 1), (1, None)))
    return jnp.mean((low + high) / 2 * jnp.abs(jnp.diff(error, axis=axis)))


def kl_divergence(mean: Float[Array, "*latents"], logvar: Float[Array, "*latents"]) -> Float[Array, ""]:
    """From N(mean, exp(logvar)) to N(0, 1), mean over the latents, nats (Kingma and Welling 2014, appendix B)."""
    return 0.5 * jnp.mean(mean**2 + jnp.exp(logvar) - 1 - logvar)


def _mean_where(x: Float[Array, "b f h w c"], mask: Bool[Array, "b f h w 1"]) -> Float[Array, ""]:
    return jnp.sum(x * mask) / jnp.maximum(jnp.sum(mask) * x.shape[-1], 1)
