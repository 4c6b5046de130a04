"""Reading a checkpoint, or what it says of itself."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx
from jax.sharding import Sharding

from mimicmotion_jax.checkpoint.checksums import find_damage
from mimicmotion_jax.checkpoint.files import (
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
    read_object,
)
from mimicmotion_jax.checkpoint.restoring import explain_damage
from mimicmotion_jax.checkpoint.write import flat_params
from mimicmotion_jax.config import build_config
from mimicmotion_jax.models.build import abstract_network
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.atomic_files import absolute_path, sha256_file
from mimicmotion_jax.runtime.errors import InputError


def read_manifest(directory: epath.PathLike) -> dict[str, Any]:
    """The manifest: `format`, `window_size`, `networks` (keys, parameters, dtype), `sources` (name, sha256, keys).

    Raises:
        InputError: no checkpoint there, a damaged one, or one of a later format.
    """
    root = absolute_path(directory)
    if not (root / MANIFEST).exists():
        raise InputError(f"{root} holds no checkpoint (no {MANIFEST}); make one with convert_weights.py.")
    manifest = read_object(root / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise InputError(f"{root} has checkpoint format {manifest.get('format')!r}, but this version reads {FORMAT}.")
    check_content(Manifest, manifest, root / MANIFEST)
    return manifest


def manifest_sha256(directory: epath.PathLike) -> str:
    """The hash of the manifest, which tells checkpoints from other sources apart.

    Raises:
        InputError: as `read_manifest`.
    """
    read_manifest(directory)
    return sha256_file(absolute_path(directory) / MANIFEST)


def read_config(directory: epath.PathLike) -> ModelConfig:
    """Sizes of the networks in a checkpoint, and its window size.

    Raises:
        InputError: no checkpoint there, or a damaged one.
    """
    read_manifest(directory)
    root = absolute_path(directory)
    return build_config(ModelConfig, read_object(root / CONFIG), source=str(root / CONFIG))


def read_sampling(directory: epath.PathLike) -> dict[str, Any]:
    """The options that sampling with this checkpoint begins with; empty where it says nothing.

    Raises:
        InputError: no checkpoint there, or a damaged one.
    """
    read_manifest(directory)
    root = absolute_path(directory)
    return read_object(root / SAMPLING) if (root / SAMPLING).exists() else {}


def fill_network(network: nnx.Module, arrays: Mapping[str, Any]) -> nnx.Module:
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
    state = load_params(directory, name, nnx.state(network), dtype, place, progress)
    return fill_network(network, flat_params(state))


def load_params(
    directory: epath.PathLike,
    name: str,
    abstract_state: nnx.State,
    dtype: str | np.dtype | None = None,
    sharding: Sharding | Callable[[str], Sharding] | None = None,
    progress: bool = True,
) -> nnx.State:
    """Parameters of one network as jax arrays, read group by group.

    Args:
        directory: a checkpoint, local or gs://.
        name: of the network, a key of `NETWORKS`.
        abstract_state: what the network needs, `nnx.state(abstract_network(name, config))`.
        dtype: cast to this while reading; None keeps the stored one.
        sharding: where the arrays go: one for all, or a function of the dotted path; None is the first local device.
        progress: show a bar.

    Raises:
        InputError: no checkpoint, or one that is damaged or does not hold exactly these tensors in these shapes.
    """
    variables = {".".join(map(str, path)): (path, variable) for path, variable in nnx.to_flat_state(abstract_state)}
    shapes = {key: tuple(variable.get_value().shape) for key, (_, variable) in variables.items()}
    groups = stored_groups(directory, name, shapes)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    place = sharding if callable(sharding) else lambda _: sharding
    leaves = []
    with byte_bar(f"Loading {name}", sum(map(_nbytes, groups)), progress) as bar:
        for number, group in enumerate(groups):
            target = {
                key: jax.ShapeDtypeStruct(shapes[key], np.dtype(dtype or stored.dtype), sharding=place(key))
                for key, stored in group.items()
            }
            arrays = read_group(directory, name, number, target)
            leaves += [(variables[key][0], variables[key][1].replace(array)) for key, array in arrays.items()]
            bar.update(_nbytes(group))
    return nnx.from_flat_state(leaves)


def stored_groups(
    directory: epath.PathLike, name: str, shapes: Mapping[str, tuple[int, ...]]
) -> list[dict[str, StoredTensor]]:
    """For each group of the network `name`, its tensors by dotted path.

    Raises:
        InputError: no checkpoint there, a damaged one, or one that does not hold exactly the tensors in `shapes`.
    """
    read_manifest(directory)
    root = absolute_path(directory)
    index = check_content(Index, read_object(root / INDEX), root / INDEX)
    if name not in index:
        raise InputError(
            f"{root} holds no {name}, only {', '.join(index)}; give a complete checkpoint (train_vae.py writes "
            "encoders alone)."
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
    """One group's arrays; `target` has a `jax.ShapeDtypeStruct` (with sharding) for each.

    Raises:
        InputError: missing or damaged files.
    """
    path = group_path(absolute_path(directory), name, number)

    def damaged(reason: str) -> str:
        return f"{path} is damaged or incomplete; convert the weights again ({reason})."

    if damage := find_damage(path.parent, path.name):
        raise InputError(damaged(damage))
    with explain_damage(damaged), ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
        return checkpointer.restore(path, dict(target))


def _alone() -> ocp.options.MultiprocessingOptions:
    """Each process reads what its devices need; by default orbax lets it wait for all others, which may not come."""
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}"
    )


def _nbytes(group: Mapping[str, StoredTensor]) -> int:
    return sum(leaf.nbytes for leaf in group.values())
