"""CPU cores as separate devices: work on two devices runs on two cores at once.

XLA runs many operations of a small network on one core, however many there are; docs/performance.md has the gain.
"""

import os

import jax


def available_cores() -> int:
    """Number of CPU cores available to this process."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def split_cpu(num_devices: int) -> None:
    """Make jax count the CPU as `num_devices` devices; accelerators are not affected.

    Does nothing if XLA_FLAGS sets the number, or if jax has been used already, which settles its devices.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    try:
        jax.config.update("jax_num_cpu_devices", num_devices)
    except RuntimeError:
        return
