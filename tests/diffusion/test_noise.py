"""Noise depends only on seed and frame."""

import jax.numpy as jnp
import numpy as np
from scipy import stats

from mimicmotion_jax.diffusion.noise import frame_noise, pixel_noise


def test_a_frame_has_the_same_noise_in_a_video_of_any_length():
    short = frame_noise(jnp.array([3, 4]), 5, 6, 7, 4)
    long = frame_noise(jnp.array([4, 3, 9]), 12, 6, 7, 4)
    np.testing.assert_array_equal(short[0], long[1, :5])
    np.testing.assert_array_equal(short[1], long[0, :5])


def test_it_is_standard_normal_and_independent():
    noise = np.asarray(frame_noise(jnp.array([0, 1]), 8, 16, 16, 4))
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    flat = np.concatenate([noise.reshape(16, -1), np.asarray(pixel_noise(jnp.array([0]), 16, 16, 4)).reshape(1, -1)])
    correlation = np.corrcoef(flat) - np.eye(17)
    assert np.abs(correlation).max() < 5 / np.sqrt(flat.shape[1])


def test_periodic_noise_repeats_like_the_official_one():
    noise = frame_noise(jnp.array([5]), 11, 2, 3, 4, period=4)
    plain = frame_noise(jnp.array([5]), 4, 2, 3, 4)
    np.testing.assert_array_equal(noise[0], np.asarray(plain[0])[np.arange(11) % 4])
