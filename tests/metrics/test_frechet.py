"""The Frechet distance of Gaussians whose distance is known, with many samples and with few."""

import numpy as np
import pytest
import scipy.linalg

from mimicmotion_jax.metrics import frechet_distance
from mimicmotion_jax.runtime.errors import InputError


def samples(mean: np.ndarray, covariance: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw samples whose mean and covariance are exactly these."""
    white = np.random.default_rng(seed).normal(size=(count, len(mean)))
    white -= white.mean(0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white, rowvar=False))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def covariance(dimensions: int, seed: int) -> np.ndarray:
    factor = np.random.default_rng(seed).normal(size=(dimensions, 2 * dimensions))
    return factor @ factor.T / dimensions


def by_definition(a: np.ndarray, b: np.ndarray) -> float:
    cov_a, cov_b = (np.cov(x, rowvar=False) for x in (a, b))
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root.real))


def test_independent_dimensions():
    """Sum of (mu_a - mu_b)^2 + (sigma_a - sigma_b)^2."""
    a = samples(np.array([1.0, 2.0, 3.0]), np.diag([4.0, 9.0, 1.0]), 50, seed=0)
    b = samples(np.array([0.0, 2.0, 5.0]), np.diag([1.0, 1.0, 0.25]), 20, seed=1)
    assert frechet_distance(a, b) == pytest.approx((1 + 0 + 4) + (1 + 4 + 0.25), rel=1e-12)


def test_two_by_two():
    """For 2 x 2 matrices, tr (A B)^(1/2) = (tr A B + 2 (det A B)^(1/2))^(1/2)."""
    cov_a, cov_b = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[5.0, -2.0], [-2.0, 1.0]])
    root = np.sqrt(np.trace(cov_a @ cov_b) + 2 * np.sqrt(np.linalg.det(cov_a) * np.linalg.det(cov_b)))
    a, b = samples(np.zeros(2), cov_a, 30, seed=2), samples(np.array([3.0, 4.0]), cov_b, 9, seed=3)
    assert frechet_distance(a, b) == pytest.approx(25 + 5 + 6 - 2 * root, rel=1e-12)


def test_scaling_a_full_covariance():
    """The distance of covariances S and c^2 S is (c - 1)^2 tr S, with equal means."""
    cov = covariance(40, seed=4)
    a, b = samples(np.zeros(40), cov, 100, seed=5), samples(np.zeros(40), 9 * cov, 70, seed=6)
    assert frechet_distance(a, b) == pytest.approx(4 * np.trace(cov), rel=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_root_of_the_product_gives_the_same(dtype):
    a = samples(np.full(30, 0.3), covariance(30, seed=7), 200, seed=8).astype(dtype)
    b = samples(np.zeros(30), covariance(30, seed=9), 45, seed=10).astype(dtype)
    assert frechet_distance(a, b) == pytest.approx(by_definition(a.astype(float), b.astype(float)), rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-12)


def test_fewer_samples_than_dimensions():
    """Samples in a three-dimensional subspace have the distance that they have in those three dimensions."""
    rng = np.random.default_rng(11)
    small_a, small_b = rng.normal(size=(6, 3)), 2 + rng.normal(size=(9, 3)) * [1, 3, 0.5]
    turn = np.linalg.qr(rng.normal(size=(500, 500)))[0][:3]
    expected = by_definition(small_a, small_b)
    assert frechet_distance(small_a @ turn, small_b @ turn) == pytest.approx(expected, rel=1e-12)


def test_two_samples():
    """For covariances u u^T / 2 and v v^T / 2 the trace of the root is |u . v| / 2."""
    rng = np.random.default_rng(12)
    a, b = rng.normal(size=(2, 400)), rng.normal(size=(2, 400))
    u, v = a[0] - a[1], b[0] - b[1]
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + (u @ u + v @ v) / 2 - abs(u @ v)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [2, 30, 700])
def test_equal_sets_have_no_distance(count):
    features = np.random.default_rng(13).normal(loc=50, scale=20, size=(count, 128)).astype(np.float32)
    distance = frechet_distance(features, features[::-1].copy())
    assert 0 <= distance < 1e-10 * 128 * 400


def test_features_without_a_distance_are_refused():
    fine = np.ones((3, 4))
    with pytest.raises(InputError, match="at least two clips in each set, not 1"):
        frechet_distance(fine, fine[:1])
    with pytest.raises(InputError, match="4 and 3 dimensions"):
        frechet_distance(fine, fine[:, :3])
    with pytest.raises(InputError, match="NaN or infinity"):
        frechet_distance(fine, np.where(np.eye(3, 4) > 0, np.nan, 1.0))
