"""Adapters kept apart beside layers against kernels into which they are merged, wherever a layer's kernel is used."""

import jax
import numpy as np
import pytest
from flax import nnx

from mimicmotion_jax.models.layers import Init, SelfAttention
from mimicmotion_jax.models.lora import LowRank, attach_adapters, linear_layers, merge_adapters
from mimicmotion_jax.models.transformer import CrossAttention, FeedForward

BLOCKS = {
    "attention": (lambda init: SelfAttention(init, 8, 2), (2, 3, 8)),
    "cross-attention": (lambda init: CrossAttention(init, 8, 4), (2, 4)),
    "feed-forward": (lambda init: FeedForward(init, 8), (2, 3, 8)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_kept_apart_and_merged_agree(name, error):
    make, shape = BLOCKS[name]
    plain, apart, merged = (make(Init(nnx.Rngs(0))) for _ in range(3))
    generator = np.random.default_rng(0)
    for scale in (1.0, 0.5):  # the second adapter comes on top of the first
        factors = {
            path: LowRank(
                generator.standard_normal((layer.in_features, 2), np.float32),
                generator.standard_normal((2, layer.out_features), np.float32),
            )
            for path, layer in linear_layers(plain).items()
        }
        attach_adapters(apart, factors, scale)
        merge_adapters(merged, {path: LowRank(a, np.float32(scale) * b) for path, (a, b) in factors.items()})
    x = generator.standard_normal(shape, np.float32)
    run = jax.jit(lambda block, x: block(x))
    assert error(run(apart, x), run(merged, x)) < 1e-5
    assert error(run(plain, x), run(merged, x)) > 0.1
