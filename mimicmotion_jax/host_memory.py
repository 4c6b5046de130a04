"""Keep freed memory in the process where the CPU computes: glibc gives large blocks back, and each step pays anew."""

import ctypes
import sys

import jax

# Numbers of <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_LARGEST = 2**31 - 1  # what mallopt can be told


def keep_host_memory() -> bool:
    """Tell glibc to keep and reuse what is freed, if programs run on the CPU; whether that was possible.

    XLA's CPU backend allocates its buffers anew in every call. Blocks of megabytes come from mmap by default, so the
    kernel clears and maps every page again. Peak memory stays the same; it only is not given back before the end.
    """
    if jax.default_backend() != "cpu" or sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    options = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _LARGEST, _M_TOP_PAD: 2**26, _M_ARENA_MAX: 1}
    return all(mallopt(option, value) for option, value in options.items())
