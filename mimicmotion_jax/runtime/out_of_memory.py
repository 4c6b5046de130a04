"""Running out of memory, of a device or of the machine, ends in one sentence that says what to do."""

import contextlib
from collections.abc import Iterator
from typing import TypeVar

import jax

from mimicmotion_jax.runtime.errors import InputError

T = TypeVar("T")


def fetch(results: T) -> T:
    """Results of a program, in this machine's memory, as NumPy arrays.

    A CPU's programs allocate while they run. Where one finds no room, waiting for its results raises jax's error, but
    copying them never ends (jax 0.10.2): hence the waiting, here and before weights are saved.

    Args:
        results: arrays in any tree of containers, whole on this process's devices.

    Raises:
        JaxRuntimeError, ValueError: the program failed.
    """
    return jax.device_get(jax.block_until_ready(results))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this machine's memory does not suffice, or a device's, at compilation or while a program runs."""
    return isinstance(error, MemoryError) or _is_of_a_device(error)


def _is_of_a_device(error: BaseException) -> bool:
    # The kind of error is in its words only. CUDA's are those of its libraries, which allocate by themselves; a program
    # that has run before fails with a ValueError (jax 0.10.2), a new one with jax's own error.
    words = ("RESOURCE_EXHAUSTED", "CUDA_ERROR_OUT_OF_MEMORY")
    return isinstance(error, jax.errors.JaxRuntimeError | ValueError) and any(word in str(error) for word in words)


@contextlib.contextmanager
def report_out_of_memory(advice: str) -> Iterator[None]:
    """Around work on devices, or as a function's decorator: other errors pass as they are.

    Args:
        advice: what to change, to follow "the device's memory does not suffice;".

    Raises:
        InputError: the memory of a device or of this machine does not suffice.
    """
    try:
        yield
    except MemoryError as error:
        raise InputError(f"this machine's memory does not suffice; {advice}.") from error
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if not _is_of_a_device(error):
            raise
        raise InputError(f"the device's memory does not suffice; {advice}.") from error
