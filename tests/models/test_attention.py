"""Attention against its formula on every code path; TPU kernels are interpreted, and compiled for a TPU slice."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from official import jit

from mimicmotion_jax import sharding
from mimicmotion_jax.models.attention import dot_product_attention
from mimicmotion_jax.models.execution import Execution
from mimicmotion_jax.xla_report import compile_report, topology_devices

TPU = Execution(platform="tpu")
CPU = Execution(platform="cpu")


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))


def formula(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Compute attention in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v)


def with_gradients(attend, q, k, v) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Attention and the gradients of a weighted sum of it, by one program."""
    weights = jnp.linspace(-1, 1, q.size).reshape(q.shape)

    @jit
    def run(*qkv):
        attended, backward = jax.vjp(attend, *qkv)
        return attended, backward(weights)

    return run(q, k, v)


def gradients(attend, q, k, v) -> tuple[jax.Array, ...]:
    return with_gradients(attend, q, k, v)[1]


@pytest.mark.parametrize("tokens", [24, 23])
def test_in_query_blocks(tokens, monkeypatch):
    q, k, v = normal(3, 2, tokens, 3, 8)
    np.testing.assert_allclose(jit(lambda *qkv: dot_product_attention(*qkv))(q, k, v), formula(q, k, v), atol=2e-6)
    monkeypatch.setattr("mimicmotion_jax.models.attention._MAX_SCORES", 600)  # forces blocks of three queries
    assert f"2,3,3,{tokens}" in str(jax.make_jaxpr(dot_product_attention)(q, k, v)).replace(" ", "")  # their scores
    np.testing.assert_allclose(jit(lambda *qkv: dot_product_attention(*qkv))(q, k, v), formula(q, k, v), atol=2e-6)


@pytest.mark.parametrize(
    ("max_scores", "shapes"),
    [(2**21, ["6,24,23"]), (2000, ["3,24,23"]), (600, ["1,24,23"]), (100, ["1,3,23"])],
    ids=["at once", "by three heads", "by heads", "by blocks of queries"],
)
def test_chunks_that_fit_a_cpus_caches(max_scores, shapes, monkeypatch):
    """Chunks of any size give the formula, and the gradients of the unchunked computation."""
    monkeypatch.setattr("mimicmotion_jax.models.attention._CACHED_SCORES", max_scores)
    q, k, v = normal(3, 2, 24, 3, 8)
    k, v = 9 * k[:, :23], v[:, :23]
    attend = functools.partial(dot_product_attention, execution=CPU)
    scores = re.findall(r"f32\[([\d,]+,23)\] = exp", str(jax.make_jaxpr(attend)(q, k, v)))
    assert scores == shapes
    attended, found = with_gradients(attend, q, k, v)
    np.testing.assert_allclose(attended, formula(q, k, v), atol=5e-6)
    for ours, plain in zip(found, gradients(dot_product_attention, q, k, v), strict=True):
        np.testing.assert_allclose(ours, plain, atol=2e-5 * float(jnp.abs(plain).max()))


@pytest.mark.parametrize(("tokens", "dim"), [(512, 64), pytest.param(768, 128, marks=pytest.mark.slow)])
def test_tpu_kernel(tokens, dim):
    q, k, v = normal(3, 1, tokens, 2, dim)
    attend = functools.partial(dot_product_attention, execution=TPU)
    with pltpu.force_tpu_interpret_mode(), jax.default_matmul_precision("highest"):
        assert "pallas_call" in str(jax.make_jaxpr(attend)(q, k, v))
        np.testing.assert_allclose(jit(attend)(q, k, v), formula(q, k, v), atol=5e-6)
        found = gradients(attend, q, k, v)
    with jax.default_matmul_precision("highest"):
        expected = gradients(dot_product_attention, q, k, v)
    for ours, plain in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, plain, atol=2e-5 * float(jnp.abs(plain).max()))


@pytest.mark.parametrize(
    "shape",
    [
        (24, 16, 2, 64),
        pytest.param((5, 16, 2, 8), marks=pytest.mark.slow),
        (6, 48, 1, 64),
        pytest.param((3, 72, 2, 64), marks=pytest.mark.slow),
    ],
)
def test_short_sequences_on_a_tpu(shape):
    """Eight sequences packed into one, none (5 are indivisible), two, and none because they are too long."""
    q, k, v = normal(3, *shape)
    attend = functools.partial(dot_product_attention, execution=TPU)
    with jax.default_matmul_precision("highest"):
        attended, found = with_gradients(attend, q, k, v)
        np.testing.assert_allclose(attended, formula(q, k, v), atol=2e-6)
        for ours, plain in zip(found, gradients(dot_product_attention, q, k, v), strict=True):
            np.testing.assert_allclose(ours, plain, atol=2e-5 * float(jnp.abs(plain).max()))


@pytest.mark.parametrize("shape", [(1, 576, 2, 64), (1, 512, 1, 96 + 64)])
def test_shapes_without_a_tpu_kernel(shape):
    """A number of tokens that no block divides, a head of one and a quarter tiles."""
    q, k, v = normal(3, *shape)
    attend = functools.partial(dot_product_attention, execution=TPU)
    assert "pallas_call" not in str(jax.make_jaxpr(attend)(q, k, v))
    np.testing.assert_allclose(jit(attend)(q, k, v), formula(q, k, v), atol=5e-6)


@pytest.mark.slow
def test_each_chip_runs_the_kernel_on_its_own_sequences():
    """On four v5e chips each runs the kernel on a quarter of the batch, and nothing is gathered."""
    mesh = sharding.window_mesh(sharding.sampling_mesh(devices=topology_devices("v5e:2x2")), 4, 1, 1, 1)
    execution = sharding.sampling_execution(mesh)
    assert execution.platform == "tpu"
    x = jax.ShapeDtypeStruct(
        (8, 1024, 5, 64), jnp.bfloat16, sharding=jax.sharding.NamedSharding(mesh, jax.P(sharding.WINDOWS))
    )
    loss = jit(jax.grad(lambda q, k, v: jnp.sum(dot_product_attention(q, k, v, execution)), argnums=(0, 1, 2)))
    report = compile_report(loss.lower(x, x, x), mesh)
    assert sum(report.custom_calls.values()) == 3  # forward, gradients of queries, gradients of keys and values
    assert not report.uncounted_calls
    assert not report.collectives
    # Products: two forward; three for the gradient of queries and four for keys and values, scores recomputed.
    assert report.flops_per_chip == (2 + 3 + 4) * 2 * (8 // 4) * 5 * 1024 * 1024 * 64
