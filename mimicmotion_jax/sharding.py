"""Meshes and sharding of arrays: the only file that knows `PartitionSpec`.

Sampling has one axis, the windows of a video. With fewer windows than devices the denoising loop arranges the same
devices along three axes (`window_mesh`):

    windows   splits the windows of a group
    branches  splits the two branches of guidance
    frames    splits one window, as in training

Training has three axes as well, and shards parameters:

    data     splits samples, replicates parameters
    fsdp     splits samples and parameters
    frames   splits one sample, by frames in spatial layers and by positions in temporal ones; splits parameters
"""
# pyright: reportInvalidTypeForm=false
# (jaxlib has no stubs, so jax.Device is a variable to a type checker)

import collections
import dataclasses
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mimicmotion_jax.models import cudnn, fused_geglu
from mimicmotion_jax.models.execution import Attend, Execution, Layer, PerDevice
from mimicmotion_jax.runtime.errors import InputError

WINDOWS, BRANCHES = "windows", "branches"
DATA, FSDP, FRAMES = "data", "fsdp", "frames"
_SAMPLES = (DATA, FSDP)
_SMALL = 2**14  # parameters with fewer elements are replicated: sharding them costs more than it saves
# By the compiler's estimate for v5e (docs/performance.md): 48 MiB in half precision, of 128 MiB of fast memory.
TPU_PART_SIZE = 24 * 2**20


class Rows(NamedTuple):
    """Rows of a batch that one process reads."""

    rows: tuple[int, ...]  # indices into the batch, ascending
    share: int  # index of this share; processes whose devices hold frames of the same samples have the same share
    num_shares: int


def sampling_mesh(num_devices: int | None = None, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Make a one-dimensional mesh for sampling: parameters replicated, windows sharded.

    Args:
        num_devices: number of `devices` to use; None takes all.
        devices: None takes this process's own devices: hosts share jobs, not videos.

    Raises:
        InputError: more devices are requested than there are.
    """
    devices = list(jax.local_devices() if devices is None else devices)
    count = len(devices) if num_devices is None else num_devices
    if not 1 <= count <= len(devices):
        raise InputError(f"{count} devices were requested, but there are {len(devices)}.")
    # Some of the chips of a TPU slice need not form a slice themselves, so their order is kept.
    arranged = mesh_utils.create_device_mesh((count,), devices) if count == len(devices) else np.array(devices[:count])
    return Mesh(arranged, (WINDOWS,), axis_types=(AxisType.Auto,))


def window_mesh(mesh: Mesh, num_windows: int, num_branches: int, num_frames: int, positions: int) -> Mesh:
    """Arrange the devices of a sampling mesh as (windows, branches, frames), so that few windows leave few idle.

    Devices beyond the number of windows split the branches of guidance, then the frames of each window.

    Args:
        mesh: mesh made by `sampling_mesh`.
        num_windows: windows of the video.
        num_branches: 2 with guidance, else 1.
        num_frames: frames of a window; 1 does not split windows.
        positions: positions at the UNet's coarsest resolution, which are split in layers along the frames.
    """
    windows = max(n for n in range(1, mesh.size + 1) if mesh.size % n == 0 and n <= num_windows)
    branches = math.gcd(mesh.size // windows, num_branches)
    frames = math.gcd(mesh.size // windows // branches, num_frames, positions)
    shape = (mesh.size // (branches * frames), branches, frames)
    return Mesh(mesh.devices.reshape(shape), (WINDOWS, BRANCHES, FRAMES), axis_types=(AxisType.Auto,) * 3)


def training_mesh(
    data: int | None = None,
    fsdp: int | None = None,
    frames: int = 1,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """Make a mesh (data, fsdp, frames) of all devices.

    Args:
        data: size of the axis; None takes the remaining devices, or 1 if `fsdp` is None as well.
        fsdp: size of the axis; None takes the remaining devices.
        frames: devices per sample.
        devices: None takes the devices of all processes.

    Raises:
        InputError: the product of the sizes is not the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    if fsdp is None:
        data = data or 1
        fsdp = max(len(devices) // (data * frames), 1)
    elif data is None:
        data = max(len(devices) // (fsdp * frames), 1)
    if data * fsdp * frames != len(devices):
        raise InputError(
            f"a mesh of data={data} x fsdp={fsdp} x frames={frames} needs {data * fsdp * frames} devices, but there "
            f"are {len(devices)}; change mesh.data, mesh.fsdp or mesh.frames."
        )
    # Puts neighbours of the mesh on neighbouring chips; an axis of the mesh may have to share a side of a TPU slice.
    arranged = mesh_utils.create_device_mesh((data, fsdp, frames), devices, allow_split_physical_axes=True)
    return Mesh(arranged, (DATA, FSDP, FRAMES), axis_types=(AxisType.Auto,) * 3)


def describe_mesh(mesh: Mesh) -> str:
    """Describe devices and axes, such as "8 x NVIDIA H100 (mesh data=1 fsdp=8 frames=1)"."""
    kinds = collections.Counter(device.device_kind for device in mesh.devices.flat)
    devices = " and ".join(f"{count} x {kind}" for kind, count in kinds.items())
    return f"{devices} (mesh {' '.join(f'{name}={size}' for name, size in mesh.shape.items())})"


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding with a full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_window(mesh: Mesh) -> NamedSharding:
    """Sharding of the leading axis (windows of a group, chunks to decode) over a sampling mesh."""
    return NamedSharding(mesh, PartitionSpec(WINDOWS))


def shard_windows(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    """Return a function that constrains an array to `by_window`, inside jit."""
    return lambda windows: jax.lax.with_sharding_constraint(windows, by_window(mesh))


def shard_parameter(mesh: Mesh, shape: Sequence[int]) -> NamedSharding:
    """Sharding of a parameter, its moments and its gradient on a training mesh.

    The longest axis that divides evenly is split over fsdp and frames, or over one of them if both do not fit; small
    parameters are replicated.
    """
    if np.prod(shape, dtype=int) >= _SMALL:
        for axes in ((FSDP, FRAMES), (FSDP,), (FRAMES,)):
            parts = int(np.prod([mesh.shape[axis] for axis in axes]))
            fitting = [axis for axis, size in enumerate(shape) if size % parts == 0]
            if parts > 1 and fitting:
                longest = max(fitting, key=lambda axis: shape[axis])
                return NamedSharding(mesh, PartitionSpec(*[axes if i == longest else None for i in range(len(shape))]))
    return replicated(mesh)


def shard_parameters(mesh: Mesh, tree: Any) -> Any:
    """Apply `shard_parameter` to every leaf of a tree of arrays or shapes."""
    return jax.tree.map(lambda leaf: shard_parameter(mesh, leaf.shape), tree)


def gather_parameters(mesh: Mesh, params: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """All-gather parameters for use in a layer, inside jit; their gradients are reduce-scattered.

    Explicit, because a partitioner that is free to choose moves activations to the parameters instead.
    """

    @jax.custom_vjp
    def gather(x: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, replicated(mesh))

    def scatter(_: None, gradient: jax.Array) -> tuple[jax.Array]:
        return (jax.lax.with_sharding_constraint(gradient, shard_parameter(mesh, gradient.shape)),)

    gather.defvjp(lambda x: (gather(x), None), scatter)
    return {key: gather(value) for key, value in params.items()}


def shard_samples(mesh: Mesh) -> NamedSharding:
    """Sharding of the leading axis (samples) over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(_SAMPLES))


def shard_frames(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays [B, F, ...]: samples over data and fsdp, frames over frames."""
    return NamedSharding(mesh, PartitionSpec(_SAMPLES, FRAMES))


def num_sample_shards(mesh: Mesh) -> int:
    """Number of shards of a batch."""
    return mesh.shape[DATA] * mesh.shape[FSDP]


def training_execution(mesh: Mesh, remat: bool) -> Execution:
    """Execution settings of the UNet on a training mesh."""
    return _execution(mesh, _SAMPLES, remat)


def sampling_execution(mesh: Mesh) -> Execution:
    """Execution settings of the UNet on a `window_mesh`, for batches [windows * branches, ...]."""
    execution = _execution(mesh, (WINDOWS, BRANCHES), remat=False)
    part_size = TPU_PART_SIZE if execution.platform == "tpu" else None
    return dataclasses.replace(execution, part_size=part_size, fused_geglu=fused_geglu.runs_on(_one_device(mesh)))


def decoding_execution(mesh: Mesh) -> Execution:
    """Execution settings of the VAE's decoder, whose chunks are whole on a device."""
    return Execution(platform=_platform(_one_device(mesh)))


def _execution(mesh: Mesh, samples: tuple[str, str], remat: bool) -> Execution:
    """Execution settings with samples over two axes of the mesh and frames or positions over `FRAMES`."""

    def constrain(*axes: str | tuple[str, ...] | None) -> Callable[[jax.Array], jax.Array]:
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return lambda x: jax.lax.with_sharding_constraint(x, sharding)

    sequences, device = (*samples, FRAMES), _one_device(mesh)
    return Execution(
        by_frame=constrain(samples, FRAMES),
        by_position=constrain(samples, None, FRAMES),
        # On one device it would only keep XLA from fusing queries, keys and values with what surrounds them.
        by_sequence=constrain(sequences) if mesh.size > 1 else lambda x: x,
        per_device=_per_device(mesh, PartitionSpec(sequences)),
        per_shard=_per_shard(mesh, samples),
        platform=_platform(device),
        cudnn_attention=cudnn.compute_capability(device) is not None and cudnn.runs_on(device),
        num_devices=mesh.size,
        remat=remat,
    )


def _platform(device: jax.Device) -> str:
    """Platform as `Execution` names it: jax calls all GPUs "gpu"."""
    return device.platform if cudnn.compute_capability(device) is None else "cuda"


def _one_device(mesh: Mesh) -> jax.Device:
    """A device of this process if there is one; all may be elsewhere, or absent (a topology to compile for)."""
    local = jax.local_devices()
    return next((device for device in mesh.devices.flat if device in local), mesh.devices.flat[0])


def _per_device(mesh: Mesh, spec: PartitionSpec) -> PerDevice:
    def wrap(function: Attend, shared: int = 0) -> Attend:
        specs = (spec,) * (3 - shared) + (PartitionSpec(),) * shared
        # Custom kernels do not declare how their outputs vary over the mesh, so this is not checked.
        return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=spec, check_vma=False)

    return wrap


def _per_shard(mesh: Mesh, samples: tuple[str, str]) -> Callable[[Layer, int], Layer]:
    def wrap(layer: Layer, axis: int) -> Layer:
        activations = PartitionSpec(samples, *[None] * (axis - 1), FRAMES)
        # As above: a layer may call custom kernels.
        specs = (PartitionSpec(), PartitionSpec(samples), activations)
        return jax.shard_map(layer, mesh=mesh, in_specs=specs, out_specs=activations, check_vma=False)

    return wrap


def local_rows(mesh: Mesh, batch_size: int, process: int | None = None) -> Rows:
    """Rows of a batch that the devices of a process need.

    They need not be adjacent: a mesh follows the wiring of a TPU slice, not the processes. The samples that a process
    reads fill its rows in order; the order within a batch has no meaning, samples are identified by their index.

    Args:
        mesh: training mesh.
        batch_size: size of the global batch.
        process: process index; None takes this process.

    Raises:
        InputError: processes need unequal shares of the batch, or share only some of their rows.
    """
    needed: dict[int, set[int]] = {}
    for device, (part,) in shard_samples(mesh).devices_indices_map((batch_size,)).items():
        needed.setdefault(device.process_index, set()).update(range(batch_size)[part])
    shares = sorted({tuple(sorted(rows)) for rows in needed.values()})
    if len({len(share) for share in shares}) > 1 or sum(len(share) for share in shares) != batch_size:
        raise InputError("the mesh does not give every process an equal share of the batch; change mesh.data or fsdp.")
    own = tuple(sorted(needed[jax.process_index() if process is None else process]))
    return Rows(own, shares.index(own), len(shares))


def global_batch(
    mesh: Mesh, batch_size: int, local: dict[str, np.ndarray], by_frame: Collection[str]
) -> dict[str, jax.Array]:
    """Assemble global arrays from the rows that each process has read (`local_rows`).

    Args:
        mesh: training mesh.
        batch_size: size of the global batch.
        local: this process's rows, by name.
        by_frame: names of arrays [B, F, ...], which are sharded along the frames as well.
    """
    place = {row: i for i, row in enumerate(local_rows(mesh, batch_size).rows)}

    def assemble(name: str, rows: np.ndarray) -> jax.Array:
        sharding = shard_frames(mesh) if name in by_frame else shard_samples(mesh)

        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            places = [place[row] for row in range(batch_size)[index[0]]]
            return rows[places[0] : places[-1] + 1][(slice(None), *index[1:])]

        return jax.make_array_from_callback((batch_size, *rows.shape[1:]), sharding, part)

    return {name: assemble(name, rows) for name, rows in local.items()}
