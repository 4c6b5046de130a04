"""Solvers and noise levels against diffusers, NumPy and a problem whose solution is known."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import EDMDPMSolverMultistepScheduler

from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.diffusion.edm import karras_sigmas, precondition
from mimicmotion_jax.diffusion.fusion import make_plan
from mimicmotion_jax.diffusion.sampler import denoise, group_plan
from mimicmotion_jax.diffusion.schedules import AYS_SIGMAS, make_sigmas
from mimicmotion_jax.diffusion.solvers import SOLVERS, Levels, latents_of, start
from mimicmotion_jax.inference.options import load_options
from mimicmotion_jax.runtime.errors import InputError


def solve(solver, evaluate, latents, sigmas):
    """Latents at the last level, step by step."""
    state, step = start(solver, jnp.asarray(latents)), jax.jit(lambda *args: SOLVERS[solver](evaluate, *args))
    for previous, sigma, following in zip([np.inf, *sigmas[:-2]], sigmas[:-1], sigmas[1:], strict=True):
        state = step(state, Levels(*map(jnp.float32, (previous, sigma, following))))
    return latents_of(solver, state)


def scheduler(**options):
    return EDMDPMSolverMultistepScheduler(
        sigma_min=0.002, sigma_max=700.0, sigma_data=1.0, prediction_type="v_prediction", solver_order=2, **options
    )


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_dpmpp_2m_matches_diffusers(steps):
    theirs = scheduler()
    theirs.set_timesteps(steps)
    noise = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 700
    latents = noise
    for t in theirs.timesteps:
        v = torch.tanh(0.7 * theirs.scale_model_input(latents, t) - 0.1)
        latents = theirs.step(v, t, latents).prev_sample
    ours = solve(
        "dpmpp_2m", lambda x, sigma: jnp.tanh(0.7 * precondition(sigma).c_in * x - 0.1), noise, karras_sigmas(steps)
    )
    np.testing.assert_allclose(ours, latents, rtol=1e-4, atol=1e-4)


def test_heun_matches_algorithm_1():
    """Karras et al. 2022, without noise, in float64."""
    sigmas = karras_sigmas(6).astype(np.float64)
    noise = np.random.default_rng(0).normal(size=(3, 4, 2)) * 700

    def slope(x, sigma):
        norm = np.sqrt(sigma**2 + 1)
        denoised = x / norm**2 - sigma / norm * np.tanh(0.7 * x / norm - 0.1)
        return (x - denoised) / sigma

    expected = noise
    for sigma, following in itertools.pairwise(sigmas):
        first = slope(expected, sigma)
        moved = expected + (following - sigma) * first
        if following:
            moved = expected + (following - sigma) / 2 * (first + slope(moved, following))
        expected = moved
    ours = solve("heun", lambda x, sigma: jnp.tanh(0.7 * precondition(sigma).c_in * x - 0.1), noise, sigmas)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_order_of_convergence(solver, order):
    """Data N(0, 1/4): D(x) = x / (1 + 4 sigma^2), so x(sigma) is proportional to sqrt(1/4 + sigma^2)."""

    def evaluate(x, sigma):
        c = precondition(sigma)
        return (x / (1 + 4 * sigma**2) - c.c_skip * x) / c.c_out

    exact, errors = np.sqrt(0.25 / (0.25 + 25)), []
    for steps in (32, 64):
        sigmas = np.append(np.geomspace(5, 1e-3, steps), 0)
        errors.append(abs(float(solve(solver, evaluate, np.ones(1, np.float32), sigmas)[0]) - exact))
    assert errors[1] < errors[0] * 0.6**order


def test_the_memory_goes_from_call_to_call():
    def predict(windows, frames, sigma, step, features):
        return jnp.tanh(windows - 0.3 * windows.mean(axis=2, keepdims=True)), None

    sigmas, plan = karras_sigmas(6), jax.tree.map(jnp.asarray, group_plan(make_plan(15, 6, 2, "progressive"), 2, 0))
    state = start("dpmpp_2m", jax.random.normal(jax.random.key(0), (1, 15, 3, 2, 4)) * 700)
    whole, _ = denoise(predict, state, jnp.asarray(sigmas), plan, solver="dpmpp_2m")
    for first in (0, 2, 4):
        previous = float(sigmas[first - 1]) if first else np.inf
        state, _ = denoise(
            predict, state, jnp.asarray(sigmas[first : first + 3]), plan, solver="dpmpp_2m", previous=previous
        )
    np.testing.assert_allclose(state, whole, rtol=1e-5, atol=1e-5)


def test_align_your_steps():
    np.testing.assert_allclose(make_sigmas("ays", 10), [*AYS_SIGMAS[:-1], 0], rtol=1e-6)
    between = make_sigmas("ays", 20)
    np.testing.assert_allclose(between[:-1:2], AYS_SIGMAS[:-1], rtol=1e-6)
    np.testing.assert_allclose(between[1:-1:2], np.sqrt(np.multiply(AYS_SIGMAS[1:], AYS_SIGMAS[:-1])), rtol=1e-5)
    np.testing.assert_allclose(make_sigmas("ays", 5), [700, 15.886, 4.248, 0.981, 0.173, 0], rtol=1e-6)


def test_exponential_matches_diffusers():
    theirs = scheduler(sigma_schedule="exponential")
    theirs.set_timesteps(7)
    np.testing.assert_allclose(make_sigmas("exponential", 7), theirs.sigmas, rtol=1e-4)


def test_levels_may_be_given():
    options = load_options(overrides=["schedule=[80, 5, 0.1]", "num_inference_steps=25"])
    np.testing.assert_allclose(options.sigmas, [80, 5, 0.1, 0], rtol=1e-6)
    assert options.num_steps == 3
    np.testing.assert_array_equal(options.sigmas, SamplingConfig(schedule=(80, 5, 0.1, 0)).sigmas)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("schedule=[1, 5]", r"noise levels must descend from at most 10,000 to 0, not \[1.0, 5.0\]"),
        ("schedule=[]", "noise levels must descend"),
        ("schedule=[5, .nan]", "schedule"),
        ("schedule=[5, -1]", "noise levels must descend"),
        ("schedule=linear", "schedule"),
        ("sampler=ddim", "sampler"),
        ("guidance_interval=[800, 900]", r"none of the steps' noise levels, 700 to 0.002, lies in \[800.0, 900.0\]"),
        ("guidance_interval=[5, 1]", r"its lowest noise level \(5\) must not be above its highest \(1\)"),
        ("guidance_interval=[5, 1] guidance_scale=1", r"its lowest noise level \(5\)"),
        ("min_guidance_scale=0.5", "min_guidance_scale"),
        ("pose_start=0.9 pose_end=0.1", r"pose_start \(0.9\) must not be larger than pose_end \(0.1\)"),
        ("pose_strength=-1", "pose_strength"),
    ],
)
def test_bad_values_are_explained(option, message):
    with pytest.raises(InputError, match=message) as error:
        load_options(overrides=re.split(r" (?=\w+=)", option))
    assert "\n" not in str(error.value)


def test_course_of_guidance_and_pose():
    options = SamplingConfig(num_inference_steps=4, guidance_interval=(0.01, 100), pose_start=0.25, pose_end=0.75)
    np.testing.assert_array_equal(options.guided_steps, [(0.01 <= sigma <= 100) for sigma in karras_sigmas(4)[:-1]])
    np.testing.assert_array_equal(options.pose_strengths, [0, 1, 1, 0])
    np.testing.assert_allclose(
        SamplingConfig(min_guidance_scale=1, max_guidance_scale=3).guidance_scales(5), [1, 1.5, 2, 2.5, 3]
    )
    assert options.unet_calls == 4 + 2  # levels 700, 110, 4.6 and 0.002: two have guidance
    assert SamplingConfig(sampler="heun", num_inference_steps=4).unet_calls == 2 * (2 + 2 + 2 + 1)
    assert not SamplingConfig(guidance_scale=1).guided
    assert SamplingConfig(guidance_scale=1, max_guidance_scale=2).guided
