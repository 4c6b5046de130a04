"""The Frechet distance between Gaussians fitted to two sets of features: FVD, FID-VID.

    d^2 = |mu_a - mu_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^(1/2)

A covariance is S = X^T X with X the centred features over sqrt(n - 1). The non-zero eigenvalues of S_a S_b are those of
(X_a X_b^T)(X_a X_b^T)^T, so the last trace is the sum of the singular values of X_a X_b^T. This needs no matrix square
root, and is as exact with fewer samples than dimensions, where S_a S_b is singular.
"""

import numpy as np
from beartype import beartype
from jaxtyping import Float, jaxtyped

from mimicmotion_jax.runtime.errors import InputError


@jaxtyped(typechecker=beartype)
def frechet_distance(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d2"]) -> float:
    """Compute d^2 above in float64, with covariances over n - 1 (`np.cov`); symmetric, zero for equal sets.

    With few samples it is biased upwards: compare only numbers from sets of the same size.

    Args:
        a: features of one set, one row per clip.
        b: features of the other set.

    Raises:
        InputError: a set has fewer than two clips, the dimensions differ, or features are not finite.
    """
    if a.shape[1] != b.shape[1]:
        raise InputError(f"features of {a.shape[1]} and {b.shape[1]} dimensions come from different networks.")
    (mean_a, factor_a), (mean_b, factor_b) = _fit(a), _fit(b)
    shared = np.linalg.svd(factor_a @ factor_b.T, compute_uv=False).sum()
    squared = ((mean_a - mean_b) ** 2).sum() + (factor_a**2).sum() + (factor_b**2).sum() - 2 * shared
    return max(float(squared), 0.0)  # for equal sets, rounding may end just below zero


def _fit(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean [d] and a factor X [min(n, d), d] with X^T X the covariance."""
    if len(features) < 2:
        raise InputError(f"a Frechet distance needs at least two clips in each set, not {len(features)}.")
    if not np.isfinite(features).all():
        raise InputError("features hold NaN or infinity; check the videos and the network's weights.")
    features = features.astype(np.float64)
    mean = features.mean(axis=0)
    centred = (features - mean) / np.sqrt(len(features) - 1)
    # A rotation of the rows changes neither X^T X nor the singular values.
    if len(features) > features.shape[1]:
        return mean, np.asarray(np.linalg.qr(centred, mode="r"))
    return mean, centred
