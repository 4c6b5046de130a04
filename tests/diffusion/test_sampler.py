"""Denoising loop against NumPy; the group size changes nothing."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mimicmotion_jax.diffusion.edm import karras_sigmas
from mimicmotion_jax.diffusion.fusion import make_plan
from mimicmotion_jax.diffusion.sampler import bucket, denoise, group_plan


def predict(windows, frames, sigma, step, features):
    """Predict like a network that mixes the frames of a window and depends on their numbers."""
    mean = windows.mean(axis=2, keepdims=True)
    v = jnp.tanh(windows - 0.3 * mean) + 0.01 * frames[:, None, :, None, None, None] / (1 + sigma)
    return v, None


def numpy_loop(latents, sigmas, plan):
    latents = latents.astype(np.float64)
    for sigma, sigma_next in itertools.pairwise(sigmas):
        fused = np.zeros_like(latents)
        for frames, weights in zip(plan.indices, plan.weights, strict=True):
            window = latents[:, frames]
            out = np.tanh(window - 0.3 * window.mean(axis=1, keepdims=True))
            out += 0.01 * frames[:, None, None, None] / (1 + sigma)
            fused[:, frames] += weights[:, None, None, None] * out
        denoised = latents / (sigma**2 + 1) - sigma / np.sqrt(sigma**2 + 1) * fused
        latents = latents + (sigma_next - sigma) * (latents - denoised) / sigma
    return latents


@pytest.mark.parametrize("mode", ["official", "progressive", "uniform", "none"])
@pytest.mark.parametrize("group_size", [1, 2, 3])
def test_matches_numpy_for_any_group_size(mode, group_size):
    sigmas = karras_sigmas(6)
    plan = make_plan(15, 6, 2, mode)
    noise = np.asarray(jax.random.normal(jax.random.key(0), (2, 15, 3, 2, 4))) * 700
    expected = numpy_loop(noise, sigmas.astype(np.float64), plan)
    ours = jax.jit(
        lambda x: denoise(predict, x, jnp.asarray(sigmas), jax.tree.map(jnp.asarray, group_plan(plan, group_size, 0)))
    )(noise)[0]
    np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=2e-4)


def test_groups_cover_the_plan_and_padding_is_never_computed():
    plan = make_plan(100, 16, 6, "uniform")
    grouped = group_plan(plan, 3, capacity=17)
    assert int(grouped.num_groups) == -(-plan.num_windows // 3)
    assert len(grouped.indices) == 6
    np.testing.assert_array_equal(grouped.indices.reshape(-1, 16)[: plan.num_windows], plan.indices)
    np.testing.assert_array_equal(grouped.weights.reshape(-1, 16)[plan.num_windows :], 0)


def test_buckets_waste_at_most_a_quarter():
    for count in range(1, 500):
        assert count <= bucket(count) <= max(count, 1.25 * count)
    assert bucket(9) == bucket(10) == 10
