"""A network computes in the dtype of its parameters (`test_pipeline` compares videos of half and full precision)."""

import jax
import jax.numpy as jnp
import pytest


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_results_have_the_dtype_of_the_parameters(tiny_pipeline, dtype):
    unet, vae = (
        jax.tree.map(lambda x: x.astype(dtype), network) for network in (tiny_pipeline.unet, tiny_pipeline.vae)
    )

    def run(unet, vae):
        conditions = unet.conditions(jnp.ones((1, 16)), jnp.ones((1, 3)), 3)
        latents = vae.encode(jnp.ones((2, 16, 32, 3)))[0]
        return unet(jnp.ones((1, 3, 8, 16, 8)), jnp.zeros(1), conditions), latents, vae.decode(latents[None])

    assert [shape.dtype for shape in jax.eval_shape(run, unet, vae)] == [dtype] * 3
