"""Kernels in int8: rounding against NumPy, every layer that reads one, and bytes of the full networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mimicmotion_jax import MimicMotionPipeline
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.models.convolutions import Conv, TemporalConv
from mimicmotion_jax.models.layers import Init, SelfAttention
from mimicmotion_jax.models.quantization import Int8Kernel, quantize_array, quantize_network
from mimicmotion_jax.models.transformer import FeedForward

BLOCKS = {
    "convolution": (lambda init: Conv(init, 8, 6, 3, padding=1), (2, 5, 5, 8)),
    "temporal convolution": (lambda init: TemporalConv(init, 8, 6), (1, 4, 5, 8)),
    "attention": (lambda init: SelfAttention(init, 8, 2), (2, 3, 8)),
    "feed-forward": (lambda init: FeedForward(init, 8), (2, 3, 8)),
}


def test_rounding_by_hand():
    kernel = np.float32([[254, 0, -1], [-253, 0, 0.25], [3, 0, 0.501]])
    values, scale = quantize_array(kernel)
    np.testing.assert_array_equal(values, [[127, 0, -127], [-126, 0, 32], [2, 0, 64]])  # halves to the even neighbour
    np.testing.assert_allclose(scale, [2, 1, 1 / 127], rtol=1e-6)  # a channel of zeros stays zero


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_values_are_off_by_half_a_scale_at_most(dtype):
    kernel = np.random.default_rng(0).standard_normal((3, 3, 16, 64)).astype(jnp.dtype(dtype))
    values, scale = quantize_array(kernel)
    assert (values.dtype, scale.dtype, scale.shape) == (jnp.int8, dtype, (64,))
    exact = kernel.astype(np.float64)
    off = np.abs(np.asarray(values, np.float64) * np.asarray(scale, np.float64) - exact)
    assert (off <= 0.5001 * np.asarray(scale, np.float64)).all()
    np.testing.assert_allclose(scale.astype(np.float32), np.abs(exact).max((0, 1, 2)) / 127, rtol=2**-7)


@pytest.mark.parametrize("name", BLOCKS)
def test_layers_compute_with_the_rounded_kernels(name):
    make, shape = BLOCKS[name]
    block, expected = make(Init(nnx.Rngs(0))), make(Init(nnx.Rngs(0)))
    for _, layer in nnx.iter_modules(expected):
        if hasattr(layer, "kernel"):
            kernel = np.asarray(layer.kernel[...])
            scale = np.abs(kernel).max(tuple(range(kernel.ndim - 1))) / np.float32(127)
            layer.kernel.set_value(jnp.asarray(np.round(kernel / scale) * scale))
    quantize_network(block)
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    run = jax.jit(lambda block, x: block(x))
    np.testing.assert_allclose(run(block, x), run(expected, x), rtol=1e-5, atol=1e-5)
    assert all(x.dtype == jnp.int8 for x in jax.tree.leaves(block) if x.ndim > 1)


@pytest.mark.slow
def test_half_the_bytes_of_the_full_networks():
    plain, quantized = (MimicMotionPipeline.abstract(ModelConfig(), quantize=way) for way in (None, "int8"))
    for name in ("unet", "image_encoder"):
        bytes_of = [
            sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(getattr(p, name))) for p in (plain, quantized)
        ]
        assert bytes_of[1] < 0.503 * bytes_of[0]
    for name in ("vae", "pose_net"):
        assert {x.dtype for x in jax.tree.leaves(getattr(quantized, name))} == {jnp.dtype("bfloat16")}
    for layer in (quantized.unet.conv_in, quantized.unet.conv_out, quantized.unet.time_embedding.linear_1):
        assert not isinstance(layer.kernel, Int8Kernel)
