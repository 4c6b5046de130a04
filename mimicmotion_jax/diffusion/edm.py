"""EDM preconditioning as SVD uses it (Karras et al. 2022, with sigma_data = 1): the network predicts v.

D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)

c_skip = 1 / (sigma^2 + 1)          c_out   = -sigma / sqrt(sigma^2 + 1)
c_in   = 1 / sqrt(sigma^2 + 1)      c_noise = ln(sigma) / 4
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from beartype import beartype
from jaxtyping import Array, Float, jaxtyped

from mimicmotion_jax.runtime.errors import InputError

SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 700.0, 7.0  # as in SVD's scheduler


class Preconditioning(NamedTuple):
    """Four coefficients for one or many noise levels, float32."""

    c_skip: Float[Array, "..."]
    c_out: Float[Array, "..."]
    c_in: Float[Array, "..."]
    c_noise: Float[Array, "..."]


def precondition(sigma: Float[Array, "..."]) -> Preconditioning:
    """Compute the coefficients for `sigma` > 0 (see above), in float32 so that small sigmas survive."""
    sigma = jnp.asarray(sigma, jnp.float32)
    norm = jnp.sqrt(sigma**2 + 1)
    return Preconditioning(c_skip=1 / norm**2, c_out=-sigma / norm, c_in=1 / norm, c_noise=0.25 * jnp.log(sigma))


@jaxtyped(typechecker=beartype)
def karras_sigmas(
    steps: int, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX, rho: float = RHO
) -> Float[np.ndarray, " {steps}+1"]:
    """Compute noise levels from `sigma_max` down to `sigma_min`, then 0 (Karras et al. 2022, equation 5).

    Raises:
        InputError: fewer than one step.
    """
    if steps < 1:
        raise InputError(f"num_inference_steps must be at least 1, not {steps}.")
    ramp = np.linspace(0, 1, steps)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return np.append((high + ramp * (low - high)) ** rho, 0).astype(np.float32)


def denoised(
    latents: Float[Array, "*shape"], prediction: Float[Array, "*shape"], sigma: Float[Array, "..."]
) -> Float[Array, "*shape"]:
    """Compute D(x; sigma) from the network's v-`prediction`; x itself where sigma is 0."""
    c = precondition(sigma)
    return c.c_skip * latents + c.c_out * prediction


def guide(
    unconditional: Float[Array, "*shape"], conditional: Float[Array, "*shape"], scale: float | Float[Array, "..."]
) -> Float[Array, "*shape"]:
    """Combine the predictions of both branches of classifier-free guidance."""
    return unconditional + scale * (conditional - unconditional)


@jaxtyped(typechecker=beartype)
def euler_step(
    latents: Float[Array, "*shape"],
    prediction: Float[Array, "*shape"],
    sigma: Float[Array, "..."],
    sigma_next: Float[Array, "..."],
) -> Float[Array, "*shape"]:
    """Take one Euler step x + (sigma_next - sigma) (x - D) / sigma, with D from the network's v-`prediction`.

    Rearranged by x and v, which avoids differences of large numbers:
    (1 + sigma sigma_next) / (sigma^2 + 1) x + (sigma_next - sigma) / sqrt(sigma^2 + 1) v.
    """
    c = precondition(sigma)
    return (1 + sigma * sigma_next) * c.c_skip * latents + (sigma_next - sigma) * c.c_in * prediction


@jaxtyped(typechecker=beartype)
def log_normal_sigmas(
    normal: Float[Array, "*shape"], mean: float | Float[Array, ""], std: float | Float[Array, ""]
) -> Float[Array, "*shape"]:
    """Map standard normal draws to training noise levels, ln sigma ~ N(mean, std^2) (Karras et al. 2022, table 1)."""
    return jnp.exp(mean + std * normal)


@jaxtyped(typechecker=beartype)
def velocity(
    latents: Float[Array, "*shape"], noise: Float[Array, "*shape"], sigma: Float[Array, "..."]
) -> Float[Array, "*shape"]:
    """Training target of the network for latents + sigma noise: (noise - sigma latents) / sqrt(sigma^2 + 1).

    This is the F for which D = latents. With the loss weight lambda = (1 + sigma^2) / sigma^2 on the denoised latents,
    lambda |D - latents|^2 = |F - velocity|^2, because lambda c_out^2 = 1; this form subtracts no large numbers.
    """
    return (noise - sigma * latents) * precondition(sigma).c_in
