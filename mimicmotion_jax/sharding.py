"""Meshes and how arrays lie on them: the only file that knows `PartitionSpec`."""

from collections.abc import Callable, Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mimicmotion_jax.errors import InputError

WINDOWS = "windows"  # the axis over which the windows of a group are laid


def sampling_mesh(num_devices: int | None = None, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A one-dimensional mesh for sampling: parameters on every device, windows spread.

    Args:
        num_devices: how many of `devices`; None takes all.
        devices: None takes this process's own devices: jobs, not videos, are divided among hosts.

    Raises:
        InputError: more devices asked for than there are.
    """
    devices = list(jax.local_devices() if devices is None else devices)
    count = len(devices) if num_devices is None else num_devices
    if not 1 <= count <= len(devices):
        raise InputError(f"{count} devices were asked for, but there are {len(devices)}.")
    return jax.make_mesh((count,), (WINDOWS,), devices=devices[:count], axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def shard_windows(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    """A function that lays the leading axis of an array (the windows of a group) over the mesh, inside jit."""
    sharding = NamedSharding(mesh, PartitionSpec(WINDOWS))
    return lambda windows: jax.lax.with_sharding_constraint(windows, sharding)
