"""Consistency distillation (Song et al. 2023) in the EDM parametrisation; guidance goes into the teacher (LCM).

The student f(x, sigma) is the denoised prediction D(x; sigma) itself, and f(x, 0) = x: D's c_skip is 1 and its c_out 0
there, so the boundary condition holds without other coefficients, and a student is a network like any other.

A pair of neighbouring noise levels, sigma > lower, gives the loss: the teacher, with guidance, takes one step of the
ODE from x at sigma down to `lower`, and f(x, sigma) is drawn to what the student's moving average makes of the place
that it reaches. So f learns to jump from any level to where the teacher's whole trajectory would end.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mimicmotion_jax.diffusion.edm import precondition


def consistency_error(
    student: Float[Array, "*shape c"], target: Float[Array, "*shape c"], sigma: Float[Array, "..."]
) -> Float[Array, "*shape"]:
    """Compute the mean squared distance over channels, times (1 + sigma^2) / sigma^2 as in training.

    See `edm.velocity`: this is the distance of two v-predictions.
    """
    return jnp.square((student - target) / precondition(sigma).c_out).mean(-1)


def pseudo_huber(squared: Float[Array, "*shape"], c: float) -> Float[Array, "*shape"]:
    """Compute sqrt(d^2 + c^2) - c of squared distances: d^2 / 2c near 0, d far away (Song and Dhariwal 2024)."""
    return jnp.sqrt(squared + c**2) - c
