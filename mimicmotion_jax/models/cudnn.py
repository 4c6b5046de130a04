"""Support of cuDNN's attention: by shape, and by card."""
# pyright: reportInvalidTypeForm=false
# (jaxlib has no stubs, so jax.Device is a variable to a type checker)

import functools
import logging
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

logger = logging.getLogger(__name__)

_MAX_DIM = 128
_MAX_BATCH = 65535  # blocks in the last dimension of a CUDA grid
_AMPERE = 8.0  # the lowest compute capability with these kernels


def supports(query: Float[Array, "batch queries heads dim"], batch: int, queries: int, keys: int) -> bool:
    """Return True if cuDNN has a kernel for these shapes.

    Args:
        query: array with the dtype (half precision) and the head width (a multiple of 8 up to 128).
        batch: number of sequences on one device.
        queries: queries per sequence; even, because the gradients of odd numbers are not supported (jax 0.10).
        keys: keys per sequence; even as well.
    """
    even, dim = queries % 2 == keys % 2 == 0, query.shape[-1]
    return even and query.dtype.itemsize == 2 and dim <= _MAX_DIM and dim % 8 == 0 and batch <= _MAX_BATCH


def compute_capability(device: jax.Device) -> float | None:
    """Compute capability of an NVIDIA GPU, such as 8.0 for an A100; None for other devices."""
    try:
        return float(device.compute_capability)
    except (AttributeError, ValueError):  # not a GPU, or AMD's, which have names such as gfx90a
        return None


@functools.cache
def runs_on(device: jax.Device) -> bool:
    """Return True if an NVIDIA GPU runs these kernels; otherwise log the reason.

    A card of this process is probed once, in a second or two; one that is only compiled for is assumed to run them.
    """
    if (compute_capability(device) or 0) < _AMPERE:
        error = "it is older than Ampere"
    else:
        error = probe_error(device) if device in jax.local_devices() else None
    if error:
        logger.warning(
            "%s cannot run cuDNN's attention (%s); attention takes more time and memory without it.",
            device.device_kind,
            error,
        )
    return error is None


def probe_error(device: jax.Device, implementation: Literal["xla", "cudnn"] = "cudnn") -> str | None:
    """Try an attention implementation on a device; return the first line of the error, or None if it runs.

    It is run as the networks use it: with gradients, and with a mask forwards only. Works while a program is being
    traced, without leaving anything in it.

    Args:
        device: a device of this process.
        implementation: passed to `jax.nn.dot_product_attention`.
    """
    attend = functools.partial(jax.nn.dot_product_attention, implementation=implementation)

    @jax.jit
    def both(x: Float[Array, "batch tokens heads dim"], mask: Float[Array, "tokens tokens"]) -> tuple[Array, Array]:
        return attend(x, x, x, mask=mask), jax.grad(lambda x: jnp.sum(attend(x, x, x)))(x)

    try:
        with jax.ensure_compile_time_eval():
            x, mask = jax.device_put((jnp.ones((2, 128, 2, 64), jnp.bfloat16), jnp.eye(128, dtype=bool)), device)
            jax.block_until_ready(both(x, mask))
    except RuntimeError as error:  # raised by jax, XLA or cuDNN
        return str(error).partition("\n")[0]
    return None
