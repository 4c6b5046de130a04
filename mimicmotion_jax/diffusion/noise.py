"""Initial noise that depends only on the seed and the frame, so that a video is the same on any number of devices."""

import functools

import jax
import jax.numpy as jnp
from beartype import beartype
from jaxtyping import Array, Float, Integer, jaxtyped

_STEPS = 2**32 - 2  # number of the first step's key; they go down, while those of frames go up


@functools.partial(jax.jit, static_argnames=("num_frames", "height", "width", "channels", "period"))
@jaxtyped(typechecker=beartype)
def frame_noise(
    seeds: Integer[Array, " b"], num_frames: int, height: int, width: int, channels: int, period: int | None = None
) -> Float[Array, "b {num_frames} {height} {width} {channels}"]:
    """Draw standard normal noise, frame f of sample b from the key (seeds[b], f).

    Args:
        seeds: one seed per sample.
        num_frames: number of frames; the noise of a frame does not depend on it.
        height: height of the latents.
        width: width of the latents.
        channels: channels of the latents.
        period: number of frames after which the noise repeats; in the official code the window size.
    """
    frames = jnp.arange(num_frames) % (period or num_frames)
    return jax.vmap(lambda seed: jax.vmap(lambda frame: _draw(seed, frame, (height, width, channels)))(frames))(seeds)


def step_noise(
    seeds: Integer[Array, " b"], step: Integer[Array, ""], shape: tuple[int, ...]
) -> Float[Array, "b f h w c"]:
    """Draw standard normal noise for a step of a stochastic solver, apart from that of other steps and the initial one.

    Args:
        seeds: one seed per sample.
        step: number of the step, from 0.
        shape: frames, height, width and channels of the latents.
    """
    number = jnp.uint32(_STEPS) - step.astype(jnp.uint32)
    of_step = jax.vmap(lambda seed: jax.random.bits(jax.random.fold_in(jax.random.key(seed), number)))(seeds)
    num_frames, height, width, channels = shape
    return frame_noise(of_step, num_frames, height, width, channels)


@functools.partial(jax.jit, static_argnames=("height", "width", "channels"))
@jaxtyped(typechecker=beartype)
def pixel_noise(
    seeds: Integer[Array, " b"], height: int, width: int, channels: int
) -> Float[Array, "b {height} {width} {channels}"]:
    """Draw standard normal noise to augment the reference image, from a key that no frame uses."""
    return jax.vmap(lambda seed: _draw(seed, jnp.uint32(2**32 - 1), (height, width, channels)))(seeds)


def _draw(seed: Integer[Array, ""], frame: Integer[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
    return jax.random.normal(jax.random.fold_in(jax.random.key(seed), frame), shape)
