"""Lack of memory, of a device or of the machine, reported as one sentence that says what to do."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax

from mimicmotion_jax.runtime.errors import InputError, is_disk_error

T = TypeVar("T")


def fetch(results: T) -> T:
    """Copy results of a program to host memory, as NumPy arrays.

    Programs on a CPU allocate while they run. If one runs out of memory, waiting for its results raises jax's error,
    but copying them without waiting hangs (jax 0.10.2); therefore this waits first, as saving weights does.

    Args:
        results: a pytree of arrays that are addressable from this process.

    Raises:
        JaxRuntimeError, ValueError: the program failed.
    """
    return jax.device_get(jax.block_until_ready(results))


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error reports a lack of memory, of this machine or a device, at compilation or at run time."""
    return isinstance(error, MemoryError) or _is_out_of_device_memory(error)


def _is_out_of_device_memory(error: BaseException) -> bool:
    # Only the message tells the kind of error. CUDA's libraries, which allocate memory themselves, have one of their
    # own; a program that has run before fails with a ValueError (jax 0.10.2), a new one with jax's own error.
    words = ("RESOURCE_EXHAUSTED", "CUDA_ERROR_OUT_OF_MEMORY")
    if not isinstance(error, jax.errors.JaxRuntimeError | ValueError) or is_disk_error(error):
        return False
    return any(word in str(error) for word in words)


@contextlib.contextmanager
def report_out_of_memory(advice: str | Callable[[], str]) -> Iterator[None]:
    """Turn a lack of memory inside the block, or the decorated function, into one sentence; other errors pass.

    Args:
        advice: what to change, appended to "the device's memory does not suffice;"; or a function that says it.

    Raises:
        InputError: the memory of a device or of this machine does not suffice.
    """
    try:
        yield
    except MemoryError as error:
        raise _too_little("this machine's", advice) from error
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if not _is_out_of_device_memory(error):
            raise
        raise _too_little("the device's", advice) from error


def _too_little(whose: str, advice: str | Callable[[], str]) -> InputError:
    return InputError(f"{whose} memory does not suffice; {advice if isinstance(advice, str) else advice()}.")
