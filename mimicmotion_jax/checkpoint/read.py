"""Reading checkpoints: their manifest, configuration and sampling options, and networks onto devices."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx
from jax.sharding import Sharding

from mimicmotion_jax.checkpoint.checksums import CHECKSUMS, find_damage
from mimicmotion_jax.checkpoint.files import (
    ADVICE,
    CONFIG,
    FORMAT,
    INDEX,
    MANIFEST,
    SAMPLING,
    Index,
    Manifest,
    StoredTensor,
    byte_bar,
    check_content,
    group_path,
    locate,
    read_object,
)
from mimicmotion_jax.checkpoint.restoring import explain_damage
from mimicmotion_jax.checkpoint.write import flat_params
from mimicmotion_jax.config import build_config
from mimicmotion_jax.models.build import abstract_network
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.atomic_files import sha256_file
from mimicmotion_jax.runtime.errors import InputError

Network = TypeVar("Network", bound=nnx.Module)


def read_manifest(directory: epath.PathLike) -> dict[str, Any]:
    """Read the manifest: `format`, `window_size`, `networks` (keys, parameters, dtype), `sources` (name, sha256, keys).

    Raises:
        InputError: no checkpoint there, a damaged one, or one of a later format.
    """
    root = locate(directory)
    if not (root / MANIFEST).exists():
        raise InputError(f"{root} holds no checkpoint (no {MANIFEST}); make one with `mimicmotion convert`.")
    manifest = read_object(root / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise InputError(f"{root} has checkpoint format {manifest.get('format')!r}, but this version reads {FORMAT}.")
    check_content(Manifest, manifest, root / MANIFEST)
    return manifest


def manifest_sha256(directory: epath.PathLike) -> str:
    """SHA-256 of the manifest, which identifies the checkpoint.

    Raises:
        InputError: as `read_manifest`.
    """
    read_manifest(directory)
    return sha256_file(locate(directory) / MANIFEST)


def weights_sha256(directory: epath.PathLike) -> str:
    """SHA-256 of the manifest, the configuration and the checksums, which changes with any number in the checkpoint.

    Raises:
        InputError: as `read_manifest`.
    """
    read_manifest(directory)
    root = locate(directory)
    files = [root / name for name in (MANIFEST, CONFIG, f"params/{CHECKSUMS}")]
    return hashlib.sha256("".join(sha256_file(path) for path in files if path.exists()).encode()).hexdigest()


def read_config(directory: epath.PathLike) -> ModelConfig:
    """Read the sizes of a checkpoint's networks, and its window size.

    Raises:
        InputError: no checkpoint there, or a damaged one.
    """
    read_manifest(directory)
    root = locate(directory)
    return build_config(ModelConfig, read_object(root / CONFIG), source=str(root / CONFIG))


def read_sampling(directory: epath.PathLike) -> dict[str, Any]:
    """Read the checkpoint's default sampling options; empty if it has none.

    Raises:
        InputError: no checkpoint there, or a damaged one.
    """
    read_manifest(directory)
    root = locate(directory)
    return read_object(root / SAMPLING) if (root / SAMPLING).exists() else {}


def fill_network(network: Network, arrays: Mapping[str, Any]) -> Network:
    """Replace every parameter of `network`, which may be abstract, by the array at its dotted path in `arrays`."""
    graph, state = nnx.split(network)
    leaves = [(path, leaf.replace(arrays[".".join(map(str, path))])) for path, leaf in nnx.to_flat_state(state)]
    return nnx.merge(graph, nnx.from_flat_state(leaves))


def load_network(
    directory: epath.PathLike,
    name: str,
    config: ModelConfig,
    dtype: str | np.dtype | None = None,
    place: Sharding | Callable[[str], Sharding] | None = None,
    progress: bool = False,
) -> Any:
    """Load one network of a checkpoint onto devices.

    Args:
        directory: a checkpoint, local or gs://.
        name: of the network, a key of `NETWORKS`.
        config: sizes of the networks, which the stored ones must match.
        dtype: parameters are cast to this while they are read; None keeps the stored one.
        place: where the parameters go: one sharding for all, or a function of a parameter's dotted path; None is the
            first local device.
        progress: show a bar.

    Raises:
        InputError: no checkpoint, or one that is damaged or does not hold exactly this network's tensors.
    """
    network = abstract_network(name, config)
    return fill_network(network, _load_arrays(directory, name, nnx.state(network), dtype, place, progress))


def _load_arrays(
    directory: epath.PathLike,
    name: str,
    abstract_state: nnx.State,
    dtype: str | np.dtype | None,
    place: Sharding | Callable[[str], Sharding] | None,
    progress: bool,
) -> dict[str, jax.Array]:
    shapes = {path: tuple(leaf.shape) for path, leaf in flat_params(abstract_state).items()}
    groups = stored_groups(directory, name, shapes)
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0]) if place is None else place
    arrays: dict[str, jax.Array] = {}
    with byte_bar(f"Loading {name}", sum(map(_nbytes, groups)), progress) as bar:
        for number, group in enumerate(groups):
            target = {
                path: jax.ShapeDtypeStruct(
                    shapes[path],
                    np.dtype(dtype or stored.dtype),
                    sharding=sharding(path) if callable(sharding) else sharding,
                )
                for path, stored in group.items()
            }
            arrays |= read_group(directory, name, number, target)
            bar.update(_nbytes(group))
    return arrays


def stored_groups(
    directory: epath.PathLike, name: str, shapes: Mapping[str, tuple[int, ...]]
) -> list[dict[str, StoredTensor]]:
    """List the groups of the network `name`: for each, its tensors by dotted path.

    Raises:
        InputError: no checkpoint there, a damaged one, or one that does not hold exactly the tensors in `shapes`.
    """
    read_manifest(directory)
    root = locate(directory)
    index = check_content(Index, read_object(root / INDEX), root / INDEX)
    if name not in index:
        raise InputError(
            f"{root} holds no {name}, only {', '.join(index)}; give a complete checkpoint (`mimicmotion train-vae` "
            "writes encoders only)."
        )
    stored = {key: leaf.shape for group in index[name] for key, leaf in group.items()}
    problems = [f"{key} is missing" for key in shapes if key not in stored]
    problems += [f"{key} is unknown" for key in stored if key not in shapes]
    problems += [
        f"{key} is {stored[key]} instead of {shape}" for key, shape in shapes.items() if stored.get(key, shape) != shape
    ]
    if problems:
        more = f" and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise InputError(f"{root} does not fit the {name}: {'; '.join(problems[:20])}{more}.")
    return index[name]


def read_group(directory: epath.PathLike, name: str, number: int, target: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Read the arrays of one group, cast and placed as the `jax.ShapeDtypeStruct` of each in `target` says.

    Raises:
        InputError: missing or damaged files.
    """
    path = group_path(locate(directory), name, number)

    def damaged(reason: str) -> str:
        return f"{path} is damaged or incomplete ({reason}); {ADVICE}."

    if damage := find_damage(path.parent, path.name):
        raise InputError(damaged(damage))
    with explain_damage(damaged), ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
        return checkpointer.restore(path, dict(target))


def _alone() -> ocp.options.MultiprocessingOptions:
    """Let each process read what its devices need, without orbax's default of waiting for all others."""
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}"
    )


def _nbytes(group: Mapping[str, StoredTensor]) -> int:
    return sum(leaf.nbytes for leaf in group.values())
