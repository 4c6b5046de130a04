"""Solvers of the probability-flow ODE dx/dsigma = (x - D(x; sigma)) / sigma, one step at a time, for v-predictions.

A solver carries a state from step to step: latents, and behind them on the channel axis what it remembers. All are pure
functions of arrays, called inside the scan of `sampler.denoise`; the prediction is that of the whole fused video.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mimicmotion_jax.diffusion.edm import denoised, euler_step, precondition

A = TypeVar("A", Array, np.ndarray)
SolverName = Literal["euler", "heun", "dpmpp_2m", "consistency"]

Evaluate = Callable[[Array, Array], Array]
"""The network's v for latents at a noise level."""


class Levels(NamedTuple):
    """Noise levels around a step from `sigma` to `following`; `previous` is infinite in the first one."""

    previous: Float[Array, "*n"]
    sigma: Float[Array, "*n"]
    following: Float[Array, "*n"]


def euler(evaluate: Evaluate, state: Float[Array, "*f c"], levels: Levels) -> Float[Array, "*f c"]:
    """Take an Euler step, as the official release does."""
    return euler_step(state, evaluate(state, levels.sigma), levels.sigma, levels.following)


def heun(evaluate: Evaluate, state: Float[Array, "*f c"], levels: Levels) -> Float[Array, "*f c"]:
    """Take a step of Heun's method (Karras et al. 2022, algorithm 1): two predictions, one in the step to 0."""
    size = levels.following - levels.sigma

    def predict(number: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        x, first_slope = carry
        sigma = jnp.where(number == 0, levels.sigma, levels.following)
        c = precondition(sigma)
        slope = sigma * c.c_skip * x + c.c_in * evaluate(x, sigma)  # (x - D) / sigma
        change = jnp.where(number == 0, size * slope, size / 2 * (slope - first_slope))
        return x + change, slope

    # A loop, so that the network is compiled once.
    count = jnp.where(levels.following > 0, 2, 1)
    return jax.lax.fori_loop(0, count, predict, (state, jnp.zeros_like(state)))[0]


def dpmpp_2m(evaluate: Evaluate, state: Float[Array, "*f c2"], levels: Levels) -> Float[Array, "*f c2"]:
    """Take a step of DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), with D of the step before; the last is Euler's.

    The state holds the latents and that D.
    """
    x, before = jnp.split(state, 2, axis=-1)
    estimate = denoised(x, evaluate(x, levels.sigma), levels.sigma)
    size = jnp.log(levels.sigma / levels.following)  # infinite in the step to 0
    last_size = jnp.log(levels.previous / levels.sigma)  # infinite in the first
    weight = jnp.where(levels.following > 0, size / (2 * last_size), 0)
    extrapolated = estimate + weight * (estimate - before)
    ratio = levels.following / levels.sigma
    return jnp.concatenate([ratio * x + (1 - ratio) * extrapolated, estimate], axis=-1)


def consistency(
    evaluate: Evaluate, state: Float[Array, "*f c"], levels: Levels, noise: Float[Array, "*f c"]
) -> Float[Array, "*f c"]:
    """Take a step of multistep consistency sampling (Song et al. 2023, algorithm 1): D, and new noise on it.

    For students (`diffusion.consistency`); the last step, to 0, ends at D.
    """
    return denoised(state, evaluate(state, levels.sigma), levels.sigma) + levels.following * noise


SOLVERS: dict[str, Callable[..., Array]] = {
    "euler": euler,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "consistency": consistency,
}
MEMORY = {"euler": 0, "heun": 0, "dpmpp_2m": 1, "consistency": 0}
"""Number of arrays of the latents' size that a solver remembers."""
STOCHASTIC = ("consistency",)
"""Solvers that take new noise in every step."""


def start(solver: SolverName, latents: Float[Array, "*f c"]) -> Float[Array, "*f c_all"]:
    """Make the state of the first step."""
    return jnp.concatenate([latents, *[jnp.zeros_like(latents)] * MEMORY[solver]], axis=-1)


def latents_of(solver: SolverName, state: A) -> A:
    """Latents of a state [*f, c_all]."""
    return state[..., : state.shape[-1] // (1 + MEMORY[solver])]


def with_latents(
    solver: SolverName, state: Float[Array, "*f c_all"], latents: Float[Array, "*f c"]
) -> Float[Array, "*f c_all"]:
    """Replace the latents of a state."""
    return jnp.concatenate([latents, state[..., latents.shape[-1] :]], axis=-1) if MEMORY[solver] else latents
