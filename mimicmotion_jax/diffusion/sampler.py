"""Denoising loop: one `lax.scan` over noise levels, in each step a loop over groups of windows (see `fusion`).

Each step gathers the windows of one group after the other from the latents of the whole video, predicts a group in one
batch and adds up the weighted predictions; then a solver (`solvers`) takes one step on the whole video. All windows
thus share one latent per frame.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from beartype import beartype
from jaxtyping import Array, Float, Int, PyTree, jaxtyped

from mimicmotion_jax.diffusion.fusion import WindowPlan
from mimicmotion_jax.diffusion.solvers import SOLVERS, STOCHASTIC, Levels, SolverName, latents_of

Features = PyTree[Array]
"""Arrays that a network keeps for later steps; None: nothing."""


@runtime_checkable
class Predictor(Protocol):
    """Network with its conditions: a function that predicts v for a group of windows at one noise level."""

    def __call__(
        self,
        windows: Float[Array, "g b t h w c"],
        frames: Int[Array, "g t"],
        sigma: Float[Array, ""],
        step: Int[Array, ""],
        features: Features,
    ) -> tuple[Float[Array, "g b t h w c"], Features]:
        """Predict v, and return features that it may be given in another step.

        Args:
            windows: latents.
            frames: frames of the video in each window.
            sigma: noise level.
            step: counts from the first of `sigmas`.
            features: of the same group at an earlier step; None computes everything.
        """
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
    state: Float[Array, "b f h w c"],
    sigmas: Float[Array, " levels"],
    plan: GroupedPlan,
    shard_windows: Callable[[jax.Array], jax.Array] = lambda windows: windows,
    solver: SolverName = "euler",
    previous: Float[Array, ""] | float = np.inf,
    noise: Callable[[jax.Array], jax.Array] = jnp.zeros_like,
    features: Features = None,
    keep: bool = False,
) -> tuple[Float[Array, "b f h w c"], Features]:
    """Integrate from sigmas[0] to sigmas[-1]. A pure function, to be called inside jit.

    Args:
        predict: network that predicts v for a group of windows.
        state: float32 latents at noise level sigmas[0], and what the solver remembers (`solvers.start`); frames outside
            all windows are only scaled by the schedule.
        sigmas: descending noise levels.
        plan: windows and their weights.
        shard_windows: shards the leading axis of a group over the devices.
        solver: how to take a step.
        previous: noise level before sigmas[0]; infinite if that is the first.
        noise: standard normal noise of the latents' shape for a step, counted from the first of `sigmas`; only solvers
            in `solvers.STOCHASTIC` call it.
        features: features of an earlier step, with leading axis `groups`, that every step makes do with.
        keep: return those of this step, which is the only one, predicted once (not with heun).

    Returns:
        the state at noise level sigmas[-1], and the features to be given to later steps.
    """

    def evaluate(latents: jax.Array, sigma: jax.Array, step: jax.Array) -> tuple[jax.Array, Features]:
        def predict_group(frames: jax.Array, features: Features) -> tuple[jax.Array, Features]:
            windows = shard_windows(jnp.moveaxis(latents[:, frames], 1, 0))  # [G, B, T, h, w, c]
            v, new = predict(windows, frames, sigma, step, features)
            return shard_windows(v), new if keep else None

        def fuse(group: jax.Array, carry: tuple[jax.Array, Features]) -> tuple[jax.Array, Features]:
            fused, kept = carry
            frames, weights = plan.indices[group], plan.weights[group]
            prediction, new = predict_group(frames, jax.tree.map(lambda x: x[group], features))
            weighted = prediction.astype(jnp.float32) * weights[:, None, :, None, None, None]
            kept = jax.tree.map(lambda every, one: every.at[group].set(one), kept, new)

            # Added one after the other, so that the order of the sum does not depend on group size or devices.
            def add(fused: jax.Array, window: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
                return fused.at[:, window[0]].add(window[1]), None

            return jax.lax.scan(add, fused, (frames, weighted))[0], kept

        shapes = jax.eval_shape(predict_group, plan.indices[0], None)[1] if keep else None
        kept = jax.tree.map(lambda x: jnp.zeros((len(plan.indices), *x.shape), x.dtype), shapes)
        return jax.lax.fori_loop(0, plan.num_groups, fuse, (jnp.zeros_like(latents), kept))

    def take_step(state: jax.Array, inputs: tuple[Levels, jax.Array]) -> tuple[jax.Array, Features]:
        levels, step = inputs
        drawn = (noise(step),) if solver in STOCHASTIC else ()
        if not keep:
            return SOLVERS[solver](lambda x, sigma: evaluate(x, sigma, step)[0], state, levels, *drawn), None
        v, kept = evaluate(latents_of(solver, state), levels.sigma, step)
        return SOLVERS[solver](lambda *_: v, state, levels, *drawn), kept

    before = jnp.concatenate([jnp.full(1, previous, jnp.float32), sigmas[:-2]])
    steps = Levels(before, sigmas[:-1], sigmas[1:]), jnp.arange(len(sigmas) - 1)
    if keep:
        return take_step(state, jax.tree.map(lambda x: x[0], steps))
    return jax.lax.scan(take_step, state, steps)[0], None
