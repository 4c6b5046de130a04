"""A network computes in the dtype of its parameters, and half precision stays close to full."""

import jax
import jax.numpy as jnp
import numpy as np

from mimicmotion_jax.models.attention import dot_product_attention


def _bfloat16(module):
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16), module)


def test_bfloat16_unet(tiny_pipeline):
    unet = tiny_pipeline.unet
    sample = jax.random.normal(jax.random.key(1), (1, 3, 8, 16, 8))

    @jax.jit
    def run(unet):
        conditions = unet.conditions(jnp.ones((1, 16)), jnp.ones((1, 3)), 3)
        return unet(sample, jnp.zeros(1), conditions)

    full, half = run(unet), run(_bfloat16(unet))
    assert half.dtype == jnp.bfloat16
    assert np.linalg.norm(full - half.astype(jnp.float32)) < 0.03 * np.linalg.norm(full)


def test_bfloat16_vae(tiny_pipeline):
    vae = tiny_pipeline.vae
    pixels = jax.random.uniform(jax.random.key(1), (2, 16, 32, 3), minval=-1)
    encode = jax.jit(lambda vae: vae.encode(pixels)[0])
    full, half = encode(vae), encode(_bfloat16(vae))
    assert half.dtype == jnp.bfloat16
    assert np.linalg.norm(full - half.astype(jnp.float32)) < 0.03 * np.linalg.norm(full)


def test_attention_in_query_blocks_equals_the_formula(monkeypatch):
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 24, 3, 8))
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(8)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v)
    np.testing.assert_allclose(dot_product_attention(q, k, v), expected, atol=2e-6)
    monkeypatch.setattr("mimicmotion_jax.models.attention._MAX_SCORES", 600)  # forces blocks of three queries
    np.testing.assert_allclose(dot_product_attention(q, k, v), expected, atol=2e-6)
