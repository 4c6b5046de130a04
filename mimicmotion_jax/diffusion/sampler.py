"""Denoising loop: one `lax.scan` over noise levels, in each step a loop over groups of windows (see `fusion`).

Each step gathers the windows of one group after the other from the latents of the whole video, predicts a group in one
batch and adds up the weighted predictions; then it takes one Euler step on the whole video. All windows thus share one
latent per frame.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from beartype import beartype
from jaxtyping import Array, Float, Int, jaxtyped

from mimicmotion_jax.diffusion.edm import euler_step
from mimicmotion_jax.diffusion.fusion import WindowPlan


@runtime_checkable
class Predictor(Protocol):
    """Network with its conditions: a function that predicts v for a group of windows at one noise level."""

    def __call__(
        self, windows: Float[Array, "g b t h w c"], frames: Int[Array, "g t"], sigma: Float[Array, ""]
    ) -> Float[Array, "g b t h w c"]:
        """Predict v; `frames` are the frames of the video in each window."""
        ...


class GroupedPlan(NamedTuple):
    """Window plan split into groups and padded to a bucket; groups from `num_groups` on are not computed."""

    indices: Int[Array | np.ndarray, "groups g t"]
    weights: Float[Array | np.ndarray, "groups g t"]
    num_groups: Int[Array | np.generic, ""]


def group_plan(plan: WindowPlan, group_size: int, capacity: int) -> GroupedPlan:
    """Split `plan` into groups of `group_size` windows.

    Args:
        plan: the windows.
        group_size: windows that are predicted in one batch; the last group is padded with windows of weight zero.
        capacity: minimum number of windows with padding, so that videos of similar length share one compiled program;
            groups that are all padding are skipped.
    """
    num_windows, size = plan.indices.shape
    missing = -(-max(num_windows, capacity) // group_size) * group_size - num_windows
    indices = np.concatenate([plan.indices, np.tile(np.arange(size, dtype=np.int32), (missing, 1))])
    weights = np.concatenate([plan.weights, np.zeros((missing, size), np.float32)])
    shape = (-1, group_size, size)
    return GroupedPlan(indices.reshape(shape), weights.reshape(shape), np.int32(-(-num_windows // group_size)))


def bucket(count: int) -> int:
    """Round `count` up to 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, …: at most a quarter is padding."""
    step = 1 << max(0, (count - 1).bit_length() - 3)
    return -(-count // step) * step


@jaxtyped(typechecker=beartype)
def denoise(
    predict: Predictor,
    latents: Float[Array, "b f h w c"],
    sigmas: Float[Array, " levels"],
    plan: GroupedPlan,
    shard_windows: Callable[[jax.Array], jax.Array] = lambda windows: windows,
) -> Float[Array, "b f h w c"]:
    """Integrate from sigmas[0] to sigmas[-1] by Euler steps. A pure function, to be called inside jit.

    Args:
        predict: network that predicts v for a group of windows.
        latents: float32 latents at noise level sigmas[0]; frames outside all windows are only scaled by the schedule.
        sigmas: descending noise levels.
        plan: windows and their weights.
        shard_windows: shards the leading axis of a group over the devices.

    Returns:
        Latents at noise level sigmas[-1].
    """

    def step(latents: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        sigma, sigma_next = pair

        def fuse(group: jax.Array, fused: jax.Array) -> jax.Array:
            frames, weights = plan.indices[group], plan.weights[group]
            windows = shard_windows(jnp.moveaxis(latents[:, frames], 1, 0))  # [G, B, T, h, w, c]
            prediction = shard_windows(predict(windows, frames, sigma)).astype(jnp.float32)
            weighted = prediction * weights[:, None, :, None, None, None]

            # Added one after the other, so that the order of the sum does not depend on group size or devices.
            def add(fused: jax.Array, window: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
                return fused.at[:, window[0]].add(window[1]), None

            return jax.lax.scan(add, fused, (frames, weighted))[0]

        fused = jax.lax.fori_loop(0, plan.num_groups, fuse, jnp.zeros_like(latents))
        return euler_step(latents, fused, sigma, sigma_next), None

    return jax.lax.scan(step, latents, (sigmas[:-1], sigmas[1:]))[0]
