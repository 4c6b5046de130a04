"""Small programs for several devices, and reports on them for a platform."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mimicmotion_jax.xla_report import compile_report, topology_devices

ROWS, WHOLE = PartitionSpec("x"), PartitionSpec()


def shape(*sizes, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct(sizes, dtype)


@functools.cache
def mesh(platform):
    devices = jax.devices("cpu")[:4] if platform == "cpu" else topology_devices(platform)
    return jax.make_mesh((len(devices),), ("x",), devices=devices, axis_types=(AxisType.Auto,))


def report(platform, fn, arguments, specs, **settings):
    shardings = tuple(NamedSharding(mesh(platform), spec) for spec in specs)
    return compile_report(jax.jit(fn, in_shardings=shardings).lower(*arguments), mesh(platform), **settings)


def convolve(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"))


def chain(x, weights):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]


def gradient(fn):
    return jax.grad(lambda *arguments: jnp.sum(fn(*arguments).astype(jnp.float32) ** 2), (0, 1))


QUERIES = [shape(8, 256, 2, 64)] * 3
PROGRAMS = {
    "matmul": (lambda x, w: jnp.tanh(x @ w) @ w.T, [shape(1024, 256), shape(256, 256)], [ROWS, WHOLE]),
    "attention": (jax.nn.dot_product_attention, QUERIES, [ROWS] * 3),
    "scan": (chain, [shape(1024, 256), shape(10, 256, 256)], [ROWS, WHOLE]),
    "scan gradient": (gradient(chain), [shape(1024, 256), shape(10, 256, 256)], [ROWS, WHOLE]),
    "convolution": (convolve, [shape(32, 16, 16, 128), shape(3, 3, 128, 128)], [ROWS, WHOLE]),
    "convolution gradient": (gradient(convolve), [shape(32, 16, 16, 128), shape(3, 3, 128, 128)], [ROWS, WHOLE]),
}
