"""Freed memory that stays with the process: on a CPU, XLA would have the system map the same gigabytes in every step.

That costs a fifth of a training step's time (docs/performance.md). glibc's allocator reads its settings when a process
starts, so the process starts itself again with them.
"""

import os
import platform
import sys
from glob import glob

_SETTINGS = "GLIBC_TUNABLES"
_KEEP = {
    "glibc.malloc.hugetlb": 1,  # pages of 2 MB where the system has them, instead of 4 KB
    "glibc.malloc.mmap_max": 0,  # large blocks come from the heap, which is kept, instead of mappings of their own
    "glibc.malloc.trim_threshold": 2**40,
    "glibc.malloc.top_pad": 2**28,
    "glibc.malloc.arena_max": 1,  # the heaps of other threads are too small for large blocks
}
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/accel*", "/dev/vfio/[0-9]*")


def keep_freed_memory() -> None:
    """Start this process again, with the same arguments and number, so that its allocator keeps what is freed.

    Call it first in a command; it returns in the process that was started again, and where there is nothing to gain:
    with an accelerator, without glibc, or if the environment sets GLIBC_TUNABLES. The process then holds its peak of
    memory to its end.
    """
    if _SETTINGS in os.environ or platform.libc_ver()[0] != "glibc" or not _computes_on_cpu():
        return
    settings = ":".join(f"{name}={value}" for name, value in _KEEP.items())
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {_SETTINGS: settings})


def _computes_on_cpu() -> bool:
    """Tell without jax, whose import takes seconds, whether it will use the CPU."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms == "cpu"
    return not any(glob(pattern) for pattern in _ACCELERATORS)
