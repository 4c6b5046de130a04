"""Gradients of blocks on a mesh against one device (whole networks: `training/test_resume.py`, slow)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mimicmotion_jax import sharding
from mimicmotion_jax.checkpoint import fill_network, flat_params
from mimicmotion_jax.models.blocks import SpatioTemporalResBlock
from mimicmotion_jax.models.execution import DEFAULT
from mimicmotion_jax.models.layers import Init
from mimicmotion_jax.models.transformer import SpatioTemporalTransformer

CHANNELS, EMBEDDING = 16, 24


def residual_block(init: Init):
    block = SpatioTemporalResBlock(init, CHANNELS, CHANNELS, EMBEDDING, 1e-5)
    return block, lambda block, x, y, execution: block(x, y, execution)


def transformer(init: Init):
    block = SpatioTemporalTransformer(init, CHANNELS, 2, 1, EMBEDDING)
    return block, lambda block, x, y, execution: block(x, block.conditions(y, x.shape[1]), execution)


@pytest.mark.parametrize("remat", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("make", [residual_block, pytest.param(transformer, marks=pytest.mark.slow)])
def test_gradients_on_a_mesh_are_those_of_one_device(make, remat):
    """Two samples, parameters and frames, each on two devices."""
    block, call = make(Init(nnx.Rngs(0), jnp.float32, 8))
    random = np.random.default_rng(0)
    state = flat_params(nnx.state(block))
    params = {key: jnp.asarray(random.standard_normal(value.shape, np.float32)) for key, value in state.items()}
    x, weight = random.standard_normal((2, 4, 6, 4, 6, CHANNELS)).astype(np.float32)
    y = random.standard_normal((4, EMBEDDING)).astype(np.float32)
    mesh = sharding.training_mesh(2, 2, 2)

    def gradients(params, x, y, is_sharded):
        execution = sharding.training_execution(mesh, remat) if is_sharded else DEFAULT

        def loss(params, x, y):
            gathered = sharding.gather_parameters(mesh, params) if is_sharded else params
            built = fill_network(block, gathered)
            return jnp.sum(weight * execution.checkpoint(lambda *args: call(*args, execution))(built, x, y))

        return jax.grad(loss, argnums=(0, 1, 2))(params, x, y)

    compiled = jax.jit(gradients, static_argnums=3)
    expected = compiled(params, x, y, False)
    placed = jax.device_put(params, sharding.shard_parameters(mesh, params))
    found = compiled(placed, jax.device_put(x, sharding.shard_frames(mesh)), y, True)
    assert found[0].keys() == params.keys()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max() + 1e-6), found, expected
    )


@pytest.mark.parametrize(("devices", "expected"), [(1, 4), (2, 14)])
def test_attention_on_one_device_is_not_constrained(devices, expected):
    """Four constraints around the temporal block; on several devices ten more, five around each of two attentions."""
    block, call = transformer(Init(nnx.Rngs(0), jnp.float32, 8))
    execution = sharding.training_execution(sharding.training_mesh(1, devices, devices=jax.devices()[:devices]), False)
    x, y = jnp.zeros((2, 4, 6, 4, CHANNELS)), jnp.zeros((2, EMBEDDING))
    traced = jax.make_jaxpr(lambda block, x, y: call(block, x, y, execution))(block, x, y)
    assert sum(equation.primitive.name == "sharding_constraint" for equation in traced.eqns) == expected
