"""Feed-forward products of the UNet at its own shapes: in bfloat16, with int8 kernels, and in float8."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from card.inputs import fast_dtype
from card.results import Results
from card.single import CHECKED, measure_ways
from card.sizes import positions, size_of

FLOAT8 = jnp.float8_e4m3fn


class Scaled(NamedTuple):
    """Values in eight bits; times the scale they are the original."""

    values: jax.Array
    scale: jax.Array


class Operands(NamedTuple):
    """Both sides of a product in each format."""

    x: jax.Array
    kernel: jax.Array
    x_float8: Scaled
    kernel_float8: Scaled
    kernel_int8: Scaled


def measure_eight_bits(results: Results, part: str, size: str) -> None:
    """Measure each way, and its relative error against float32, on normally distributed numbers."""
    sizes = size_of(size)
    for level in range(max(1, len(sizes.channels) - 1)):
        channels, rows = sizes.channels[level], 2 * sizes.frames * positions(sizes.block(level))
        products = [(channels, 8 * channels)] + [(4 * channels, channels)] * (level == 0)
        for cin, cout in products:
            operands = _operands(rows, cin, cout)
            measure_ways(results, part, f"{rows} x {cin} x {cout}", (operands,), WAYS, _in_float32)


def _operands(rows: int, cin: int, cout: int) -> Operands:
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (rows, cin), fast_dtype())
    kernel = jax.random.normal(keys[1], (cin, cout), fast_dtype()) * cin**-0.5
    scale = jnp.max(jnp.abs(kernel), axis=0).astype(jnp.float32) / 127  # of each output channel
    kernel_int8 = Scaled(jnp.round(kernel / scale).astype(jnp.int8), scale)
    return Operands(x, kernel, jax.jit(_float8)(x), _float8(kernel), kernel_int8)


def _float8(x: jax.Array) -> Scaled:
    """Bring the largest value to the largest of the format."""
    scale = jnp.max(jnp.abs(x)).astype(jnp.float32) / float(jnp.finfo(FLOAT8).max)
    return Scaled((x / scale).astype(FLOAT8), scale)


def _product(x: Scaled, kernel: Scaled) -> jax.Array:
    dtype, contracted = jnp.dtype(fast_dtype()), (((1,), (0,)), ((), ()))
    out = jax.lax.dot_general(x.values, kernel.values, contracted, preferred_element_type=dtype)
    return (out * (x.scale * kernel.scale)).astype(dtype)


def _int8_kernel(operands: Operands) -> jax.Array:
    x, (values, scale) = operands.x, operands.kernel_int8
    return (x @ values.astype(x.dtype) * scale).astype(x.dtype)


def _known_scale(operands: Operands) -> jax.Array:
    scale = operands.x_float8.scale
    return _product(Scaled((operands.x / scale).astype(FLOAT8), scale), operands.kernel_float8)


def _in_float32(operands: Operands) -> jax.Array:
    x, kernel = operands.x[:CHECKED].astype(jnp.float32), operands.kernel.astype(jnp.float32)
    return jnp.dot(x, kernel, precision="highest")


WAYS: dict[str, Callable[[Operands], jax.Array]] = {
    "bfloat16": lambda operands: operands.x @ operands.kernel,
    "int8 kernel": _int8_kernel,
    "float8, scale of x measured": lambda operands: _product(_float8(operands.x), operands.kernel_float8),
    "float8, scale of x given": _known_scale,
    "float8, x in float8 before": lambda operands: _product(operands.x_float8, operands.kernel_float8),
}
