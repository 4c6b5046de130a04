"""The cores of a CPU as devices of their own: what lies on two devices runs side by side on two cores.

XLA gives many of a small network's operations one core, whatever there is; docs/performance.md has what this is worth.
"""

import os

import jax


def available_cores() -> int:
    """That this process may use; where the system does not tell (macOS, Windows), those there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def split_cpu(num_devices: int) -> None:
    """Let the CPU, where there is nothing better, count as so many devices.

    Nothing changes where XLA_FLAGS says how many there are, or where jax has been used already: its devices are what
    they are then.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    try:
        jax.config.update("jax_num_cpu_devices", num_devices)
    except RuntimeError:
        return
