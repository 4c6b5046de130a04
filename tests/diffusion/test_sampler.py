"""Denoising loop against NumPy; the group size changes nothing."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mimicmotion_jax.diffusion.edm import karras_sigmas
from mimicmotion_jax.diffusion.fusion import make_plan
from mimicmotion_jax.diffusion.sampler import bucket, denoise, group_plan
from mimicmotion_jax.diffusion.solvers import latents_of, start


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


@jax.jit
def run(latents, sigmas, plan):
    return denoise(predict, latents, sigmas, plan)


@pytest.mark.parametrize("mode", ["official", "progressive", "uniform", "none"])
@pytest.mark.parametrize("group_size", [1, 2, 3])
def test_matches_numpy_for_any_group_size(mode, group_size):
    sigmas = karras_sigmas(6)
    plan = make_plan(15, 6, 2, mode)
    noise = np.random.default_rng(0).standard_normal((2, 15, 3, 2, 4), np.float32) * 700
    expected = numpy_loop(noise, sigmas.astype(np.float64), plan)
    ours = run(noise, sigmas, group_plan(plan, group_size, 0))[0]
    np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("solver", ["euler", "dpmpp_2m"])
def test_every_window_keeps_its_own_features(solver):
    """A network whose deep part is a sum over the window; two steps in three take the sum of the first."""

    def deep_part(window):
        return 0.3 * window.mean(axis=-4, keepdims=True)

    def network(windows, frames, sigma, step, features):
        features = deep_part(windows) if features is None else features
        return jnp.tanh(windows - features), features

    sigmas, plan = karras_sigmas(5).astype(np.float64), make_plan(15, 6, 2, "progressive")
    x = noise = np.random.default_rng(0).standard_normal((2, 15, 3, 2, 4)) * 700
    kept, before, previous = [None] * plan.num_windows, None, None
    for step, (sigma, following) in enumerate(itertools.pairwise(sigmas)):
        fused = np.zeros_like(x)
        for number, (frames, weights) in enumerate(zip(plan.indices, plan.weights, strict=True)):
            if step % 3 == 0:
                kept[number] = deep_part(x[:, frames])
            fused[:, frames] += weights[:, None, None, None] * np.tanh(x[:, frames] - kept[number])
        estimate = x / (sigma**2 + 1) - sigma / np.sqrt(sigma**2 + 1) * fused
        target = estimate
        if solver == "dpmpp_2m" and before is not None and following > 0:
            ratio = np.log(sigma / following) / np.log(previous / sigma)
            target = estimate + ratio / 2 * (estimate - before)
        x = target + following / sigma * (x - target)
        before, previous = estimate, sigma

    grouped = jax.tree.map(jnp.asarray, group_plan(plan, 2, 0))
    state, features = start(solver, jnp.asarray(noise, jnp.float32)), None
    for first, last in ((0, 1), (1, 3), (3, 4), (4, 5)):  # whole steps are calls of their own
        keep = first % 3 == 0
        earlier = float(sigmas[first - 1]) if first else np.inf
        levels = jnp.asarray(sigmas[first : last + 1], jnp.float32)
        given = {"previous": earlier, "features": None if keep else features, "keep": keep}
        state, new = denoise(network, state, levels, grouped, solver=solver, **given)
        features = new if keep else features
    np.testing.assert_allclose(latents_of(solver, state), x, rtol=2e-4, atol=2e-4)


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
