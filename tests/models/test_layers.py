"""Layers against PyTorch; norms in half precision against the formula in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from mimicmotion_jax.models.execution import Execution
from mimicmotion_jax.models.layers import GroupNorm, Init, LayerNorm, gelu


def normed(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    x = x.astype(np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


def features(mean: float, dtype: jnp.dtype) -> jax.Array:
    """Random features [2, 3, 5, 12], each channel with its own mean and scale."""
    noise, shifts, scales = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(2, 3, 5, 12), 12, 12]))
    return (mean + shifts + noise * jnp.exp(scales)).astype(dtype)


def randomised(norm: nnx.GroupNorm | nnx.LayerNorm) -> tuple[np.ndarray, np.ndarray]:
    scale, bias = np.random.default_rng(0).standard_normal((2, 12), np.float32)
    norm.scale[...], norm.bias[...] = scale, bias
    return scale, bias


@pytest.mark.parametrize("mean", [0.0, 100.0])
@pytest.mark.parametrize("shifted", [False, True])
def test_group_norm_is_pytorchs(mean, shifted):
    """No digits cancel with a mean a hundred times the standard deviation."""
    x = features(mean, jnp.float32)
    shift = np.random.default_rng(1).standard_normal((2, 1, 1, 12), np.float32) if shifted else None
    ours = GroupNorm(Init(nnx.Rngs(0), groups=4), 12, 1e-5)
    scale, bias = (torch.tensor(x).double() for x in randomised(ours))
    given = np.moveaxis(np.asarray(x, np.float64) + (shift if shifted else 0), -1, 1)
    theirs = torch.nn.functional.group_norm(torch.tensor(given), 4, scale, bias, 1e-5)
    np.testing.assert_allclose(ours(x, shift), np.moveaxis(theirs.numpy(), 1, -1), atol=2e-5 if mean else 2e-6)


@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_layer_norm_is_pytorchs(mean):
    x = features(mean, jnp.float32)
    ours = LayerNorm(Init(nnx.Rngs(0)), 12)
    scale, bias = (torch.tensor(x).double() for x in randomised(ours))
    theirs = torch.nn.functional.layer_norm(torch.tensor(np.asarray(x)).double(), (12,), scale, bias)
    np.testing.assert_allclose(ours(x), theirs.numpy(), atol=2e-5 if mean else 2e-6)


@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_norms_in_half_precision_are_exact_to_rounding(mean):
    """The error of one pass over bfloat16 inputs is below the rounding of the result to 8 bits."""
    x = features(mean, jnp.bfloat16)
    init = Init(nnx.Rngs(0), jnp.bfloat16, groups=4)
    groups = normed(np.asarray(x, np.float64).reshape(2, 3, 5, 4, 3), (1, 2, 4), 1e-5).reshape(x.shape)
    found = GroupNorm(init, 12, 1e-5)(x)
    np.testing.assert_allclose(np.asarray(found, np.float64), groups, rtol=2**-8, atol=1e-3)
    for platform in ("tpu", "cuda"):
        found = LayerNorm(init, 12)(x, Execution(platform=platform))
        expected = normed(np.asarray(x), (-1,), 1e-5)
        np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=2**-8, atol=1e-3)


def test_gelu_is_pytorchs():
    x = np.linspace(-12, 12, 4001, dtype=np.float32)
    expected = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    np.testing.assert_allclose(gelu(jnp.asarray(x)), expected, atol=1e-6)
    half = jnp.asarray(x, jnp.bfloat16)
    exact = torch.nn.functional.gelu(torch.from_numpy(np.asarray(half, np.float64))).numpy()
    assert gelu(half).dtype == jnp.bfloat16
    # One unit in the last of 8 bits, and the error of float32 where the result nearly vanishes.
    np.testing.assert_allclose(np.asarray(gelu(half), np.float64), exact, rtol=2**-8, atol=1e-6)
