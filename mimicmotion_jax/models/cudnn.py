"""cuDNN's attention: which shapes it takes, and whether a card runs it."""

import functools
import logging

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

logger = logging.getLogger(__name__)

_MAX_DIM = 128
_MAX_BATCH = 65535  # blocks in the last dimension of a CUDA grid
_AMPERE = 8.0  # the first compute capability with the kernels


def takes(query: Float[Array, "batch queries heads dim"], batch: int, queries: int, keys: int) -> bool:
    """Whether there is a kernel for `batch` sequences on a device, of so many queries and keys.

    Args:
        query: for its dtype (half precision) and the width of a head (multiples of 8 up to 128).
        batch: sequences.
        queries: of each; even, as the gradients of odd numbers are refused (jax 0.10).
        keys: likewise.
    """
    even, dim = queries % 2 == keys % 2 == 0, query.shape[-1]
    return even and query.dtype.itemsize == 2 and dim <= _MAX_DIM and dim % 8 == 0 and batch <= _MAX_BATCH


def compute_capability(device: jax.Device) -> float | None:
    """Of an NVIDIA GPU, such as 8.0 for an A100; None for other devices."""
    try:
        return float(device.compute_capability)
    except (AttributeError, ValueError):  # no GPU; AMD's are called gfx90a
        return None


@functools.cache
def runs_on(device: jax.Device) -> bool:
    """Whether an NVIDIA GPU runs these kernels; if not, why is logged.

    A card of this process tries them, which takes a second or two, once. One that is only compiled for is believed.
    """
    if (compute_capability(device) or 0) < _AMPERE:
        objection = "it is older than Ampere"
    else:
        objection = probe_error(device) if device in jax.local_devices() else None
    if objection:
        logger.warning(
            "%s cannot run cuDNN's attention (%s); attention takes more time and memory without.",
            device.device_kind,
            objection,
        )
    return objection is None


def probe_error(device: jax.Device, implementation: str = "cudnn") -> str | None:
    """What a device, or the software for it, says against an implementation of attention; None if it runs.

    It runs as in the networks: a long sequence with its gradients, and forwards several with a mask between them.
    A program that is being traced takes no part in it.

    Args:
        device: of this process.
        implementation: of `jax.nn.dot_product_attention`.

    Returns:
        One line.
    """
    attend = functools.partial(jax.nn.dot_product_attention, implementation=implementation)

    @jax.jit
    def both(x: Float[Array, "batch tokens heads dim"], mask: Float[Array, "tokens tokens"]) -> tuple[Array, Array]:
        return attend(x, x, x, mask=mask), jax.grad(lambda x: jnp.sum(attend(x, x, x)))(x)

    try:
        with jax.ensure_compile_time_eval():
            x, mask = jax.device_put((jnp.ones((2, 128, 2, 64), jnp.bfloat16), jnp.eye(128, dtype=bool)), device)
            jax.block_until_ready(both(x, mask))
    except RuntimeError as error:  # of jax, XLA or cuDNN
        return str(error).partition("\n")[0]
    return None
