"""Consistency distillation and its sampler on Gaussian data, where every function is known in closed form.

Data N(m, S^2): D(x; sigma) = (S^2 x + sigma^2 m) / (S^2 + sigma^2), the ODE keeps (x - m) / sqrt(S^2 + sigma^2), and so
the consistency function is f(x, sigma) = m + (x - m) S / sqrt(S^2 + sigma^2).
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mimicmotion_jax.diffusion.consistency import consistency_error, pseudo_huber
from mimicmotion_jax.diffusion.edm import denoised, euler_step, guide, precondition
from mimicmotion_jax.diffusion.fusion import make_plan
from mimicmotion_jax.diffusion.noise import frame_noise, step_noise
from mimicmotion_jax.diffusion.sampler import denoise, group_plan
from mimicmotion_jax.diffusion.schedules import make_sigmas

S = 0.5
SCALE = 1.7


def velocity_of(estimate, x, sigma):
    """v for which D is `estimate`."""
    c = precondition(sigma)
    return (estimate - c.c_skip * x) / c.c_out


def posterior_mean(x, sigma, mean):
    return (S**2 * x + sigma**2 * mean) / (S**2 + sigma**2)


def consistency_function(x, sigma, mean):
    return mean + (x - mean) * S / (S**2 + sigma**2) ** 0.5


def test_the_student_is_the_denoised_prediction_and_x_itself_at_0():
    x, v = jnp.array([3.0, -2.0]), jnp.array([0.3, 5.0])
    np.testing.assert_array_equal(denoised(x, v, jnp.float32(0)), x)
    sigma = 2.0
    np.testing.assert_allclose(denoised(x, v, jnp.float32(sigma)), x / 5 - sigma / np.sqrt(5) * v, rtol=1e-6)


@pytest.mark.parametrize("steps", [16, 64])
def test_the_exact_student_has_no_error_but_eulers(steps):
    """Branches of guidance with means 0 and 1 make a teacher of mean SCALE; the error falls with more levels."""
    sigmas = make_sigmas("ays", steps)
    high, low = map(jnp.asarray, (sigmas[:-1, None], sigmas[1:, None]))
    rng = np.random.default_rng(0)
    x = jnp.asarray(SCALE + rng.normal(size=(1, 50)) * np.sqrt(S**2 + np.asarray(high) ** 2), jnp.float32)

    @jax.jit
    def teach_and_compare(x, high, low):
        v = guide(*(velocity_of(posterior_mean(x, high, mean), x, high) for mean in (0.0, 1.0)), SCALE)
        reached = euler_step(x, v, high, low)
        target = consistency_function(reached, low, SCALE)
        students = (consistency_function(x, high, mean) for mean in (SCALE, 1.0))
        return reached, [consistency_error(y[..., None], target[..., None], high[..., None]) for y in students]

    reached, (errors, unguided) = jax.device_get(teach_and_compare(x, high, low))
    # One step by hand: x + (low - high) (x - D) / high.
    x, high, low = (np.asarray(array) for array in (x, high, low))
    by_hand = x + (low - high) / high * (x - posterior_mean(x, high, SCALE))
    np.testing.assert_allclose(reached, by_hand, rtol=1e-4, atol=1e-3)
    assert errors.max() < (2e-2 if steps == 16 else 1e-3)
    assert unguided[len(sigmas) // 2].min() > 0.05


def test_distances():
    student, target = np.array([[1.0, 2.0], [0.5, 0.5]]), np.array([[0.0, 0.0], [0.5, 1.5]])
    sigma = 0.7
    error = consistency_error(jnp.asarray(student), jnp.asarray(target), jnp.float32(sigma))
    np.testing.assert_allclose(error, (1 + sigma**2) / sigma**2 * np.array([2.5, 0.5]), rtol=1e-5)
    np.testing.assert_allclose(pseudo_huber(jnp.array([0.0, 9.0]), 4.0), [0, 1], atol=1e-6)


def noise_of(step):
    return jax.random.normal(jax.random.key(step), (2, 15, 3, 2, 4))


@pytest.mark.parametrize("mode", ["progressive", "none"])
def test_sampling_matches_numpy_and_goes_on_from_call_to_call(mode):
    def predict(windows, frames, sigma, step, features):
        return jnp.tanh(windows - 0.3 * windows.mean(axis=2, keepdims=True)), None

    sigmas, plan = make_sigmas("ays", 4), make_plan(15, 6, 2, mode)
    expected = start = np.asarray(noise_of(99), np.float64) * 700
    for step, (sigma, following) in enumerate(itertools.pairwise(sigmas.astype(np.float64))):
        fused = np.zeros_like(expected)
        for frames, weights in zip(plan.indices, plan.weights, strict=True):
            window = expected[:, frames]
            fused[:, frames] += weights[:, None, None, None] * np.tanh(window - 0.3 * window.mean(1, keepdims=True))
        estimate = expected / (sigma**2 + 1) - sigma / np.sqrt(sigma**2 + 1) * fused
        expected = estimate + following * np.asarray(noise_of(step))
    grouped, state = jax.tree.map(jnp.asarray, group_plan(plan, 2, 0)), jnp.asarray(start, jnp.float32)
    for first in (0, 2):
        state, _ = denoise(
            predict,
            state,
            jnp.asarray(sigmas[first : first + 3]),
            grouped,
            solver="consistency",
            noise=lambda step, first=first: noise_of(first + step),
        )
    np.testing.assert_allclose(state, expected, rtol=1e-3, atol=1e-4)


def test_samples_of_an_exact_student_are_distributed_like_the_data():
    def predict(windows, frames, sigma, step, features):
        return velocity_of(consistency_function(windows, sigma, SCALE), windows, sigma), None

    shape, seeds = (8, 32, 32, 4), jnp.arange(1, dtype=jnp.uint32)
    plan = jax.tree.map(jnp.asarray, group_plan(make_plan(8, 8, 0, "progressive"), 1, 0))
    for steps in (1, 3):
        sigmas = make_sigmas("ays", steps)
        state = frame_noise(seeds, *shape) * sigmas[0]
        samples, _ = denoise(
            predict,
            state,
            jnp.asarray(sigmas),
            plan,
            solver="consistency",
            noise=lambda step: step_noise(seeds, step, shape),
        )
        assert float(samples.mean()) == pytest.approx(SCALE, abs=0.01)
        assert float(samples.std()) == pytest.approx(S, abs=0.01)


def test_noise_of_steps_depends_on_seed_step_and_frame_alone():
    seeds = jnp.array([3, 4], jnp.uint32)
    short, long = step_noise(seeds, jnp.int32(1), (3, 8, 8, 4)), step_noise(seeds, jnp.int32(1), (5, 8, 8, 4))
    np.testing.assert_array_equal(short, long[:, :3])
    others = [step_noise(seeds, jnp.int32(2), (3, 8, 8, 4)), frame_noise(seeds, 3, 8, 8, 4), short[::-1]]
    for other in others:
        assert abs(np.corrcoef(np.ravel(short), np.ravel(other))[0, 1]) < 0.1
