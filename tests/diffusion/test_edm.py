"""Noise schedule, preconditioning and Euler step against diffusers' scheduler and formulas worked by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler

from mimicmotion_jax.diffusion.edm import euler_step, karras_sigmas, precondition
from mimicmotion_jax.runtime.errors import InputError

SVD = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "interpolation_type": "linear",
    "prediction_type": "v_prediction",
    "sigma_max": 700.0,
    "sigma_min": 0.002,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}


@pytest.mark.parametrize("steps", [1, 2, 4, 25, 30])
def test_sigmas_match_diffusers(steps):
    scheduler = EulerDiscreteScheduler(**SVD)
    scheduler.set_timesteps(steps)
    np.testing.assert_allclose(karras_sigmas(steps), scheduler.sigmas, rtol=2e-6)
    c_noise = precondition(jnp.asarray(karras_sigmas(steps)[:-1])).c_noise
    np.testing.assert_allclose(c_noise, scheduler.timesteps, rtol=1e-5)


def test_steps_match_diffusers():
    scheduler = EulerDiscreteScheduler(**SVD)
    scheduler.set_timesteps(5)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 3, 4, 5, generator=generator) * scheduler.init_noise_sigma
    assert float(scheduler.init_noise_sigma) == pytest.approx(np.sqrt(700**2 + 1))
    ours = jnp.asarray(latents)
    for t, sigma, sigma_next in zip(scheduler.timesteps, karras_sigmas(5), karras_sigmas(5)[1:], strict=False):
        scaled = scheduler.scale_model_input(latents, t)
        np.testing.assert_allclose(precondition(sigma).c_in * ours, scaled, rtol=2e-4, atol=1e-5)
        prediction = torch.randn(latents.shape, generator=generator)
        latents = scheduler.step(prediction, t, latents).prev_sample
        ours = euler_step(ours, jnp.asarray(prediction), jnp.float32(sigma), jnp.float32(sigma_next))
    np.testing.assert_allclose(ours, latents, rtol=1e-4, atol=1e-5)


def test_coefficients_at_sigma_two():
    c = precondition(jnp.float32(2.0))  # sigma^2 + 1 = 5
    np.testing.assert_allclose(c, [1 / 5, -2 / np.sqrt(5), 1 / np.sqrt(5), np.log(2) / 4], rtol=1e-6)


def test_last_step_lands_on_the_denoised_value():
    x, v, sigma = 3.0, 0.5, 0.7
    c_skip, c_out = 1 / (sigma**2 + 1), -sigma / np.sqrt(sigma**2 + 1)
    result = euler_step(jnp.float32(x), jnp.float32(v), jnp.float32(sigma), jnp.float32(0))
    assert float(result) == pytest.approx(c_skip * x + c_out * v, rel=1e-6)


def test_schedule_starts_and_ends_at_the_configured_sigmas():
    assert karras_sigmas(25)[[0, -2, -1]] == pytest.approx([700, 0.002, 0])


def test_recorded_schedule(golden):
    np.testing.assert_allclose(karras_sigmas(golden.settings["steps"]), golden.record["sigmas"], rtol=1e-6)
    np.testing.assert_allclose(karras_sigmas(25), golden.record["sigmas_25"], rtol=1e-6)


def test_no_steps_is_refused():
    with pytest.raises(InputError, match="at least 1"):
        karras_sigmas(0)
