"""GEGLU as one kernel for Hopper cards: its numbers in Pallas' interpreter, and where it is used."""

import dataclasses
import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.sharding import NamedSharding, PartitionSpec

from mimicmotion_jax import sharding
from mimicmotion_jax.models.execution import Execution
from mimicmotion_jax.models.fused_geglu import fused_geglu, probe_error, runs_on, supports
from mimicmotion_jax.models.hopper_geglu import normal_cdf
from mimicmotion_jax.models.layers import Init
from mimicmotion_jax.models.lora import LowRank, attach_adapters
from mimicmotion_jax.models.transformer import FeedForward
from mimicmotion_jax.xla_report import compile_report, topology_devices

interpreted = pytest.mark.skipif(
    jax.__version_info__ < (0, 11), reason="Pallas' interpreter of kernels for Hopper is public since jax 0.11"
)
on_hopper = Execution(platform="cuda", fused_geglu=True)


def exact(x, kernel, bias):
    """In float64, with the error function of Python's library."""
    x, kernel, bias = (np.asarray(array, np.float64) for array in (x, kernel, bias))
    value, gate = np.split(x @ kernel + bias, 2, axis=-1)
    return value * gate * (0.5 + 0.5 * np.vectorize(math.erf)(gate / math.sqrt(2)))


def random_arrays(dtype, *shapes):
    random = np.random.default_rng(0)
    return [jnp.asarray(random.standard_normal(shape) * shape[0] ** -0.5 * scale, dtype) for shape, scale in shapes]


def test_distribution_function():
    x = np.linspace(-9, 9, 20001)
    expected = 0.5 + 0.5 * np.vectorize(math.erf)(x / math.sqrt(2))
    np.testing.assert_allclose(normal_cdf(jnp.asarray(x, jnp.float32)), expected, atol=2e-6)


@interpreted
@pytest.mark.parametrize(("dtype", "error"), [("bfloat16", 2e-3), ("float16", 3e-4)])
def test_kernel(dtype, error):
    """Errors of the results' own rounding: 2^-9 and 2^-12 at most."""
    arrays = random_arrays(dtype, ((2, 128, 192), 1.4), ((192, 512), 1), ((512,), 7))
    with plgpu.force_gpu_interpret_mode():
        found = np.asarray(fused_geglu(*arrays), np.float64)
    expected = exact(*arrays)
    assert np.linalg.norm(found - expected) < error * np.linalg.norm(expected)


@interpreted
def test_feed_forward():
    """The same module with its two products, which `test_unet.py` compares with PyTorch."""
    module = FeedForward(Init(nnx.Rngs(0), jnp.bfloat16), 192)
    (x,) = random_arrays("bfloat16", ((4, 32, 192), 2))
    expected = np.asarray(module(x), np.float64)
    with plgpu.force_gpu_interpret_mode():
        found = np.asarray(module(x, on_hopper), np.float64)
    assert 0 < np.linalg.norm(found - expected) < 5e-3 * np.linalg.norm(expected)


def uses_kernel(channels=192, tokens=32, dtype=jnp.bfloat16, execution=on_hopper, change=lambda module: module):
    module = change(nnx.eval_shape(lambda: FeedForward(Init(nnx.Rngs(0), dtype), channels)))
    graph, params = nnx.split(module)
    x = jax.ShapeDtypeStruct((4, tokens, channels), dtype)
    return "wgmma" in str(jax.make_jaxpr(lambda params, x: nnx.merge(graph, params)(x, execution))(params, x))


def test_where_it_is_used():
    assert uses_kernel()
    assert uses_kernel(channels=320)
    assert not uses_kernel(execution=dataclasses.replace(on_hopper, fused_geglu=False))
    assert not uses_kernel(dtype=jnp.float32)
    assert not uses_kernel(tokens=31)  # 124 rows
    assert not uses_kernel(channels=128)  # fewer blocks than the kernel has in flight


def test_adapters_need_both_products():
    def adapted(module):
        attach_adapters(module, {"proj_in": LowRank(jnp.ones((192, 2)), jnp.ones((2, 8 * 192)))})
        return module

    assert not uses_kernel(change=adapted)


def test_rows_of_each_device():
    x, kernel = jax.ShapeDtypeStruct((4, 64, 320), "bfloat16"), jax.ShapeDtypeStruct((320, 2560), "bfloat16")
    assert [supports(x, kernel, num_devices) for num_devices in (1, 2, 4)] == [True, True, False]


class Card:
    """A GPU of another process, which is not probed."""

    device_kind = "NVIDIA card"

    def __init__(self, compute_capability):
        self.compute_capability = compute_capability


@pytest.mark.parametrize(("capability", "runs"), [("8.0", False), ("9.0", True), ("10.0", False)])
def test_cards(capability, runs, caplog):
    """Instructions for Hopper's products exist neither before nor after it; that is nothing to warn of."""
    with caplog.at_level(logging.WARNING):
        assert runs_on(Card(capability)) == runs
    assert not caplog.text


def test_a_device_that_cannot_run_it_gives_an_error_and_leaves_nothing_in_a_traced_program():
    errors = []

    def program(x):
        errors.append(probe_error(jax.devices("cpu")[0]))
        return x

    assert not jax.make_jaxpr(program)(1.0).eqns
    assert errors[0]
    assert "\n" not in errors[0]


@pytest.mark.cuda_compiler
def test_two_cards_compute_half_of_it_each():
    """One kernel each, on half of the sequences; its FLOPs by hand; nothing is sent."""
    mesh = sharding.window_mesh(sharding.sampling_mesh(devices=topology_devices("h100:2")), 2, 1, 1, 1)
    execution = sharding.sampling_execution(mesh)
    assert execution.fused_geglu
    graph, params = nnx.split(nnx.eval_shape(lambda: FeedForward(Init(nnx.Rngs(0), jnp.bfloat16), 320)))
    here = sharding.replicated(mesh)
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), params)
    halves = NamedSharding(mesh, PartitionSpec(sharding.WINDOWS))
    x = jax.ShapeDtypeStruct((32, 256, 320), jnp.bfloat16, sharding=halves)
    report = compile_report(jax.jit(lambda params, x: nnx.merge(graph, params)(x, execution)).lower(params, x), mesh)
    assert [count for name, count in report.custom_calls.items() if name.startswith("mosaic_gpu")] == [1]
    assert report.flops_per_chip == 16 * 256 * 2 * 320 * (2560 + 1280)
    assert not report.uncounted_calls
    assert not report.collectives
