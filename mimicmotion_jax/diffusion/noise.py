"""Initial noise that depends on nothing but the seed and the frame: the same video on any number of devices."""

import functools

import jax
import jax.numpy as jnp
from beartype import beartype
from jaxtyping import Array, Float, Int, jaxtyped


@functools.partial(jax.jit, static_argnames=("num_frames", "height", "width", "channels", "period"))
@jaxtyped(typechecker=beartype)
def frame_noise(
    seeds: Int[Array, " b"], num_frames: int, height: int, width: int, channels: int, period: int | None = None
) -> Float[Array, "b {num_frames} {height} {width} {channels}"]:
    """Standard normal noise, frame f of sample b drawn from the key (seeds[b], f).

    Args:
        seeds: one seed per sample.
        num_frames: how many frames; the noise of a frame does not depend on it.
        height: of the latents.
        width: of the latents.
        channels: of the latents.
        period: repeat the noise along time after so many frames, as the official code does with its window.
    """
    frames = jnp.arange(num_frames) % (period or num_frames)
    return jax.vmap(lambda seed: jax.vmap(lambda frame: _draw(seed, frame, (height, width, channels)))(frames))(seeds)


@functools.partial(jax.jit, static_argnames=("height", "width", "channels"))
@jaxtyped(typechecker=beartype)
def pixel_noise(
    seeds: Int[Array, " b"], height: int, width: int, channels: int
) -> Float[Array, "b {height} {width} {channels}"]:
    """Standard normal noise for the augmentation of the reference image, from a key that no frame uses."""
    return jax.vmap(lambda seed: _draw(seed, jnp.uint32(2**32 - 1), (height, width, channels)))(seeds)


def _draw(seed: Int[Array, ""], frame: Int[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
    return jax.random.normal(jax.random.fold_in(jax.random.key(seed), frame), shape)
