"""Meshes and how arrays lie on them: the only file that knows `PartitionSpec`.

Sampling has one axis, over which the windows of a video are laid; where there are fewer windows than devices, the
denoising loop sees the same devices as three (`window_mesh`):

    windows   windows of a group apart
    branches  the two branches of guidance apart
    frames    one window over several devices, as in training

Training has three as well, and parameters that are not on every device whole:

    data     samples apart, parameters repeated
    fsdp     samples apart, parameters cut up
    frames   one sample over several devices: frames apart in spatial layers, positions in temporal ones;
             parameters cut up as well
"""

import collections
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mimicmotion_jax.models import cudnn
from mimicmotion_jax.models.execution import Attend, Execution
from mimicmotion_jax.runtime.errors import InputError

WINDOWS, BRANCHES = "windows", "branches"
DATA, FSDP, FRAMES = "data", "fsdp", "frames"
_SAMPLES = (DATA, FSDP)
_SMALL = 2**14  # parameters of fewer elements are repeated: cutting them up costs more than it saves


class Rows(NamedTuple):
    """A process's part of a batch."""

    rows: tuple[int, ...]  # of the batch, ascending
    share: int  # which of the shares this is; processes whose devices hold frames of the same samples have the same
    num_shares: int


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
    # Some of the chips of a TPU slice need not form one, so their order is taken as it is.
    laid = mesh_utils.create_device_mesh((count,), devices) if count == len(devices) else np.array(devices[:count])
    return Mesh(laid, (WINDOWS,), axis_types=(AxisType.Auto,))


def window_mesh(mesh: Mesh, num_windows: int, num_branches: int, num_frames: int, positions: int) -> Mesh:
    """The devices of a sampling mesh as (windows, branches, frames), so that few windows leave few of them idle.

    Devices that the windows leave over take guidance's branches apart, then the frames of each window.

    Args:
        mesh: from `sampling_mesh`.
        num_windows: of the video.
        num_branches: 2 with guidance, else 1.
        num_frames: of a window; 1 keeps windows whole.
        positions: at the UNet's coarsest resolution; they are split where layers work along the frames.
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
    """A mesh (data, fsdp, frames) of all devices.

    Args:
        data: None takes what the others leave, or 1 where `fsdp` is None as well.
        fsdp: None takes what the others leave.
        frames: devices per sample.
        devices: None takes the devices of all processes.

    Raises:
        InputError: the sizes do not multiply to the number of devices.
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
    # Neighbours of the mesh on neighbours of a TPU slice, whose sides an axis of the mesh may have to share.
    laid = mesh_utils.create_device_mesh((data, fsdp, frames), devices, allow_split_physical_axes=True)
    return Mesh(laid, (DATA, FSDP, FRAMES), axis_types=(AxisType.Auto,) * 3)


def describe_mesh(mesh: Mesh) -> str:
    """Devices and axes in words: "8 x NVIDIA H100 (mesh data=1 fsdp=8 frames=1)"."""
    kinds = collections.Counter(device.device_kind for device in mesh.devices.flat)
    devices = " and ".join(f"{count} x {kind}" for kind, count in kinds.items())
    return f"{devices} (mesh {' '.join(f'{name}={size}' for name, size in mesh.shape.items())})"


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_window(mesh: Mesh) -> NamedSharding:
    """The leading axis (windows of a group, or chunks that are decoded together) over a mesh for sampling."""
    return NamedSharding(mesh, PartitionSpec(WINDOWS))


def shard_windows(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    """A function that lays an array out `by_window`, inside jit."""
    return lambda windows: jax.lax.with_sharding_constraint(windows, by_window(mesh))


def shard_parameter(mesh: Mesh, shape: Sequence[int]) -> NamedSharding:
    """Where a parameter, its moments and its gradient lie on a training mesh.

    The longest axis that divides evenly is cut over fsdp and frames together, or over one of them where both do not
    fit; small parameters are repeated.
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
    """`shard_parameter` for every leaf of a tree of arrays or of their shapes."""
    return jax.tree.map(lambda leaf: shard_parameter(mesh, leaf.shape), tree)


def gather_parameters(mesh: Mesh, params: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Whole copies for use in a layer, inside jit; their gradients are summed over the samples and cut up again.

    Said explicitly, because a partitioner that is free to choose moves activations to the parameters instead.
    """

    @jax.custom_vjp
    def gather(x: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, replicated(mesh))

    def scatter(_: None, gradient: jax.Array) -> tuple[jax.Array]:
        return (jax.lax.with_sharding_constraint(gradient, shard_parameter(mesh, gradient.shape)),)

    gather.defvjp(lambda x: (gather(x), None), scatter)
    return {key: gather(value) for key, value in params.items()}


def shard_samples(mesh: Mesh) -> NamedSharding:
    """The leading axis (samples) over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(_SAMPLES))


def shard_frames(mesh: Mesh) -> NamedSharding:
    """Arrays [B, F, ...]: samples over data and fsdp, frames over frames."""
    return NamedSharding(mesh, PartitionSpec(_SAMPLES, FRAMES))


def num_sample_shards(mesh: Mesh) -> int:
    """Into how many parts a batch is cut."""
    return mesh.shape[DATA] * mesh.shape[FSDP]


def training_execution(mesh: Mesh, remat: bool) -> Execution:
    """How the UNet runs on a training mesh."""
    return _execution(mesh, _SAMPLES, remat)


def sampling_execution(mesh: Mesh) -> Execution:
    """How the UNet runs on a `window_mesh`, for a batch of windows with the branches of each side by side."""
    return _execution(mesh, (WINDOWS, BRANCHES), remat=False)


def _execution(mesh: Mesh, samples: tuple[str, str], remat: bool) -> Execution:
    """Samples over two axes of the mesh, their frames or positions over `FRAMES`."""

    def lay(*axes: str | tuple[str, ...] | None) -> Callable[[jax.Array], jax.Array]:
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return lambda x: jax.lax.with_sharding_constraint(x, sharding)

    sequences = (*samples, FRAMES)
    here = jax.local_devices()
    # The devices need not be there (a topology to compile for), nor in this process.
    device = next((device for device in mesh.devices.flat if device in here), mesh.devices.flat[0])
    capability = cudnn.compute_capability(device)
    return Execution(
        by_frame=lay(samples, FRAMES),
        by_position=lay(samples, None, FRAMES),
        by_sequence=lay(sequences),
        per_device=_per_device(mesh, PartitionSpec(sequences)),
        platform=device.platform if capability is None else "cuda",
        cudnn_attention=capability is not None and cudnn.runs_on(device),
        num_devices=mesh.size,
        remat=remat,
    )


def _per_device(mesh: Mesh, spec: PartitionSpec) -> Callable[[Attend], Attend]:
    def wrap(function: Attend) -> Attend:
        # Kernels do not say how their outputs vary over the mesh, hence no check of it.
        return jax.shard_map(function, mesh=mesh, in_specs=(spec,) * 3, out_specs=spec, check_vma=False)

    return wrap


def local_rows(mesh: Mesh, batch_size: int, process: int | None = None) -> Rows:
    """The rows of a batch that a process's devices need.

    They need not lie side by side: a mesh follows the wires of a TPU slice, not the processes. What a process reads
    goes to its rows in their order; the order of a batch means nothing, samples are known by their index.

    Args:
        mesh: for training.
        batch_size: of the whole batch.
        process: None takes this one.

    Raises:
        InputError: processes that need unequal shares of the batch, or share some of their rows only.
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
    """Arrays of the whole batch from the rows that each process has read (`local_rows`).

    Args:
        mesh: for training.
        batch_size: of the whole batch.
        local: this process's rows, by name.
        by_frame: names of arrays [B, F, ...], which are cut along the frames as well.
    """
    place = {row: i for i, row in enumerate(local_rows(mesh, batch_size).rows)}

    def assemble(name: str, rows: np.ndarray) -> jax.Array:
        sharding = shard_frames(mesh) if name in by_frame else shard_samples(mesh)

        def part(index: tuple[slice, ...]) -> np.ndarray:
            places = [place[row] for row in range(batch_size)[index[0]]]
            return rows[places[0] : places[-1] + 1][(slice(None), *index[1:])]

        return jax.make_array_from_callback((batch_size, *rows.shape[1:]), sharding, part)

    return {name: assemble(name, rows) for name, rows in local.items()}
