"""When GEGLU is one kernel (`hopper_geglu`) instead of two products: by shape, and by card."""
# pyright: reportInvalidTypeForm=false
# (jaxlib has no stubs, so jax.Device is a variable to a type checker)

import functools
import logging
import math

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from mimicmotion_jax.models import cudnn

logger = logging.getLogger(__name__)

_HOPPER = 9.0  # compute capability; the instructions of the kernel exist on no other
BLOCK = 128
"""Rows that a processor multiplies at a time."""
COLUMNS = 128
"""Columns of value and of gate; together the widest product that Hopper has, which reads its rows only once."""
DEPTH = 64
"""Channels per step: 128 bytes, the widest rows that shared memory can hold without conflicts."""
STAGES = 3
"""Steps whose blocks are in shared memory at a time; four were slower."""

_TOLERANCE = 0.01  # of the relative difference from two products in bfloat16, whose own error is 0.004


def supports(x: jax.Array, kernel: jax.Array, num_devices: int) -> bool:
    """Return True if the kernel takes these shapes.

    Args:
        x: activations [N, tokens, C], their first axis spread over the devices.
        kernel: [C, 2 D], half precision like the activations.
        num_devices: number of devices.
    """
    rows, (channels, columns) = math.prod(x.shape[:-1]), kernel.shape
    whole = rows % (BLOCK * num_devices) == channels % DEPTH == columns % (2 * COLUMNS) == 0
    half = x.dtype == kernel.dtype and x.dtype.itemsize == 2
    return whole and half and channels >= STAGES * DEPTH


def fused_geglu(
    x: Float[Array, "n tokens c"], kernel: Float[Array, "c twice_d"], bias: Float[Array, " twice_d"]
) -> Float[Array, "n tokens d"]:
    """Compute value * gelu(gate) with [value, gate] = x @ kernel + bias in one kernel, on one Hopper card.

    It has no gradient. For shapes that it `supports`.
    """
    # Imported here because it is experimental in jax: other devices do not depend on it.
    from mimicmotion_jax.models.hopper_geglu import geglu

    out = geglu(rearrange(x, "n tokens c -> (n tokens) c"), kernel, bias)
    return rearrange(out, "(n tokens) d -> n tokens d", n=x.shape[0])


@functools.cache
def runs_on(device: jax.Device) -> bool:
    """Return True if a device runs the kernel; log the reason if a Hopper card does not.

    A card of this process is probed once, in a second or two; one that is only compiled for is assumed to run it.
    """
    if cudnn.compute_capability(device) != _HOPPER:
        return False
    error = probe_error(device) if device in jax.local_devices() else None
    if error:
        logger.warning(
            "%s cannot run GEGLU in one kernel (%s); feed-forwards take more time without it.",
            device.device_kind,
            error,
        )
    return error is None


def probe_error(device: jax.Device) -> str | None:
    """Try the kernel on a device; return what is wrong, or None if it agrees with two products.

    Works while a program is being traced, without leaving anything in it.
    """
    try:
        with jax.ensure_compile_time_eval():
            keys = jax.random.split(jax.device_put(jax.random.key(0), device), 3)
            shapes = (1, 2 * BLOCK, 5 * DEPTH), (5 * DEPTH, 4 * COLUMNS), (4 * COLUMNS,)
            x, kernel, bias = (
                jax.random.normal(key, shape, jnp.bfloat16) for key, shape in zip(keys, shapes, strict=True)
            )
            kernel *= (5 * DEPTH) ** -0.5
            value, gate = jnp.split((x @ kernel + bias).astype(jnp.float32), 2, axis=-1)
            expected = value * jax.nn.gelu(gate, approximate=False)
            error = jax.jit(fused_geglu)(x, kernel, bias).astype(jnp.float32) - expected
            difference = jnp.linalg.norm(error) / jnp.linalg.norm(expected)
    except Exception as error:  # whatever a version of jax with another interface raises
        return f"{type(error).__name__}: {error}".partition("\n")[0]
    return None if difference < _TOLERANCE else f"its results are {difference:.2g} off"
