"""Single operations of the UNet at its own shapes, each way to compute them alone: GEGLU and attention."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from card.candidates import require_hopper
from card.inputs import accelerator, fast_dtype, pooled
from card.measuring import measure_kernel, relative_difference
from card.results import Results, Row
from card.sizes import Size, positions, size_of
from mimicmotion_jax.models.fused_geglu import fused_geglu
from mimicmotion_jax.models.transformer import gelu

Way = Callable[..., jax.Array]
CHECKED = 4096  # rows that are compared with float32


def measure_single(results: Results, part: str, size: str) -> None:
    """Measure each way, and its relative error against float32."""
    sizes = size_of(size)
    for level in range(max(1, len(sizes.channels) - 1)):
        channels, height, width = sizes.block(level)
        rows = 2 * sizes.frames * height * width
        measure_ways(results, part, f"GEGLU {channels}", *_geglu(rows, channels), _geglu_in_float32)
        heads, tokens = sizes.heads[level], positions(sizes.block(level))
        if accelerator() or size == "tiny":  # scores of the full size have no room elsewhere
            measure_ways(
                results, part, f"attention {channels}", *_attention(sizes, tokens, heads), _attention_in_float32
            )


def measure_ways(
    results: Results, part: str, name: str, arguments: tuple[Any, ...], ways: dict[str, Way], exact: Way
) -> None:
    """Add a row for each way: milliseconds, and the relative error of its first rows against `exact`."""
    if not any(map(results.wants, ways)):
        return
    expected = jax.device_get(jax.jit(exact)(*arguments))

    def row(way: Way) -> Row:
        jitted = jax.jit(way)
        out = np.asarray(jax.device_get(jitted(*arguments)[:CHECKED]), np.float32)
        found: Row = {"ms": measure_kernel(lambda: jitted(*arguments), jax.block_until_ready)}
        if out.shape[1:] == expected.shape[1:]:  # not so for the product alone
            found["error"] = relative_difference(out[: len(expected)], expected)
        return found

    for way, function in ways.items():
        if results.wants(way):
            results.row(part, f"{name}: {way}", functools.partial(row, function))


def _array(name: str, shape: tuple[int, ...], scale: float = 1.0) -> jax.Array:
    return jnp.asarray(pooled(name, shape) * scale, fast_dtype())


def _geglu(rows: int, channels: int) -> tuple[tuple[jax.Array, ...], dict[str, Way]]:
    kernel = _array("kernel", (channels, 8 * channels), channels**-0.5)
    arguments = (_array("x", (rows, channels)), kernel, _array("bias", (8 * channels,)))

    def two_products(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        (value, gate), biases = jnp.split(kernel, 2, axis=-1), jnp.split(bias, 2)
        return (x @ value + biases[0]) * gelu(x @ gate + biases[1])

    def one_kernel(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        require_hopper()
        return fused_geglu(x[None], kernel, bias)[0]

    product = {"product alone": lambda x, kernel, bias: x @ kernel}
    return arguments, {"two products": two_products, "one kernel": one_kernel} | product


def _geglu_in_float32(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    x, kernel = (array.astype(jnp.float32) for array in (x[:CHECKED], kernel))
    value, gate = jnp.split(jnp.dot(x, kernel, precision="highest") + bias, 2, axis=-1)
    return value * gelu(gate)


def _attention(size: Size, tokens: int, heads: int) -> tuple[tuple[jax.Array, ...], dict[str, Way]]:
    shape = (2 * size.frames, tokens, heads, size.channels[0] // size.heads[0])
    arguments = tuple(_array(name, shape) for name in "qkv")
    cudnn = jax.default_backend() == "gpu" and arguments[0].dtype.itemsize == 2

    def by_pallas(q: jax.Array, k: jax.Array, v: jax.Array, keys: int) -> jax.Array:
        from jax.experimental.pallas.ops.gpu import attention_mgpu

        require_hopper()
        blocks = attention_mgpu.TuningConfig(block_q=64, block_kv=keys, max_concurrent_steps=2)
        scaled = (x.astype(jnp.float16) for x in (q * shape[-1] ** -0.5, k, v))
        return attention_mgpu.attention(*scaled, blocks).astype(q.dtype)

    attend = functools.partial(jax.nn.dot_product_attention, implementation="cudnn" if cudnn else None)
    pallas = {f"Pallas, {keys} keys": functools.partial(by_pallas, keys=keys) for keys in (128, 256)}
    return arguments, {"cuDNN" if cudnn else "XLA": attend} | (pallas if tokens % 256 == 0 else {})


def _attention_in_float32(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    first = (x[:1].astype(jnp.float32) for x in (q, k, v))
    with jax.default_matmul_precision("highest"):
        return jax.nn.dot_product_attention(*first)
