"""The denoising loop: one `lax.scan` over noise levels, in each step a loop over groups of windows (see `fusion`).

Per step and group: gather the group's windows from the latents of the whole video, predict them together, add the
weighted predictions up; then one Euler step on the whole video. All windows thus see one latent per frame.
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
    """The network with its conditions: v for a group of windows at one noise level."""

    def __call__(
        self, windows: Float[Array, "g b t h w c"], frames: Int[Array, "g t"], sigma: Float[Array, ""]
    ) -> Float[Array, "g b t h w c"]:
        """Predict v; `frames` tells which frames of the video each window shows."""
        ...


class GroupedPlan(NamedTuple):
    """A window plan cut into groups and padded to a bucket; groups from `num_groups` on are never computed."""

    indices: Int[Array, "groups g t"]
    weights: Float[Array, "groups g t"]
    num_groups: Int[Array, ""]


def group_plan(plan: WindowPlan, group_size: int, capacity: int) -> GroupedPlan:
    """Cut `plan` into groups of `group_size` windows.

    Args:
        plan: the windows.
        group_size: windows that are predicted together; a group that is not full gets windows of weight zero.
        capacity: at least this many windows fit, so that videos of similar length share one compiled program; groups
            that are all padding are skipped, not computed.
    """
    num_windows, size = plan.indices.shape
    missing = -(-max(num_windows, capacity) // group_size) * group_size - num_windows
    indices = np.concatenate([plan.indices, np.tile(np.arange(size, dtype=np.int32), (missing, 1))])
    weights = np.concatenate([plan.weights, np.zeros((missing, size), np.float32)])
    shape = (-1, group_size, size)
    return GroupedPlan(indices.reshape(shape), weights.reshape(shape), np.int32(-(-num_windows // group_size)))


def bucket(count: int) -> int:
    """`count` rounded up to 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, …: at most a quarter is padding."""
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
    """Integrate from sigmas[0] to sigmas[-1] by Euler steps. Pure; meant to be jitted.

    Args:
        predict: the network for a group of windows.
        latents: at noise level sigmas[0], float32; frames that no window shows only follow the schedule.
        sigmas: descending noise levels.
        plan: the windows.
        shard_windows: lays the leading axis of a group over the devices.
    """

    def step(latents: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        sigma, sigma_next = pair

        def fuse(group: jax.Array, fused: jax.Array) -> jax.Array:
            frames, weights = plan.indices[group], plan.weights[group]
            windows = shard_windows(jnp.moveaxis(latents[:, frames], 1, 0))  # [G, B, T, h, w, c]
            prediction = shard_windows(predict(windows, frames, sigma)).astype(jnp.float32)
            weighted = prediction * weights[:, None, :, None, None, None]

            # One window after the other: the order of the sum depends neither on the group size nor on the devices.
            def add(fused: jax.Array, window: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
                return fused.at[:, window[0]].add(window[1]), None

            return jax.lax.scan(add, fused, (frames, weighted))[0]

        fused = jax.lax.fori_loop(0, plan.num_groups, fuse, jnp.zeros_like(latents))
        return euler_step(latents, fused, sigma, sigma_next), None

    return jax.lax.scan(step, latents, (sigmas[:-1], sigmas[1:]))[0]
