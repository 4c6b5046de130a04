"""A network computes in the dtype of its parameters, and half precision stays close to full."""

import jax
import jax.numpy as jnp
import numpy as np


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
