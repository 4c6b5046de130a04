"""Our checkpoints on disk: config.json, manifest.json and, for each network, a row of orbax checkpoints.

    DIR/config.json            sizes of the four networks and the window size (`ModelConfig`)
    DIR/sampling.json          options that sampling begins with (size, drawing, …), where training has set any
    DIR/manifest.json          where the weights came from: names, sha256, counts, dtype, window size
    DIR/params/index.json      which tensors lie in which group, with shape and dtype
    DIR/params/unet-00000 ...  one orbax checkpoint of a flat {"conv_in.kernel": array} per group

A network is cut into groups so that neither writing nor reading ever holds more than one group besides the result.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx
from jax.sharding import Sharding
from tqdm import tqdm

from mimicmotion_jax.config import build_config, to_dict
from mimicmotion_jax.directories import absolute_path, atomic_directory, check_space
from mimicmotion_jax.errors import InputError
from mimicmotion_jax.models.config import ModelConfig

Key = TypeVar("Key")

FORMAT = 1
GROUP_BYTES = 2**26
CHUNK_BYTES = 2**22  # read and written in parallel; small buffers leave small holes in the heap
_MANIFEST = "manifest.json"
_CONFIG = "config.json"
_SAMPLING = "sampling.json"
_INDEX = "params/index.json"


def flat_params(state: nnx.State) -> dict[str, Any]:
    """Leaves of `state` by dotted path (`down_blocks.0.resnets.1.norm1.scale`), in path order."""
    return {".".join(map(str, path)): variable.get_value() for path, variable in nnx.to_flat_state(state)}


def plan_groups(sizes: Mapping[Key, int], limit: int = GROUP_BYTES) -> list[list[Key]]:
    """Cut what has these `sizes` in bytes, in order, into groups of at most `limit` (anything larger stands alone)."""
    groups: list[list[Key]] = []
    room = 0
    for key, size in sizes.items():
        if not groups or size > room:
            groups.append([])
            room = limit
        groups[-1].append(key)
        room -= size
    return groups


class CheckpointWriter:
    """Writes groups of tensors into a new checkpoint; made by `new_checkpoint`."""

    def __init__(self, root: epath.Path):
        self._root = root
        self._index: dict[str, list[dict[str, Any]]] = {}

    def add_group(self, name: str, arrays: Mapping[str, np.ndarray | jax.Array]) -> None:
        """Write the next group of the network `name`; numpy or (possibly sharded) jax arrays by dotted path."""
        groups = self._index.setdefault(name, [])
        with ocp.StandardCheckpointer() as checkpointer:
            chunks = dict.fromkeys(arrays, ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES))
            checkpointer.save(_group_path(self._root, name, len(groups)), dict(arrays), save_args=chunks)
        groups.append({key: {"shape": list(array.shape), "dtype": str(array.dtype)} for key, array in arrays.items()})

    def finish(
        self, config: ModelConfig, sources: Sequence[Mapping[str, Any]], sampling: Mapping[str, Any] | None = None
    ) -> None:
        """Write index, configuration, options and, last, the manifest (with `sources`) that makes it a checkpoint."""
        if jax.process_index() != 0:
            return
        # Orbax writes the folder's present, temporary and absolute path there; only that the file exists is ever asked.
        for marker in (self._root / "params").glob("*/commit_success.txt"):
            marker.write_text("committed\n")
        networks = {name: _summary(groups) for name, groups in self._index.items()}
        manifest = {"format": FORMAT, "window_size": config.window_size, "networks": networks, "sources": list(sources)}
        files = {_INDEX: self._index, _CONFIG: to_dict(config), _SAMPLING: sampling, _MANIFEST: manifest}
        for name, content in files.items():
            if content:
                (self._root / name).write_text(json.dumps(content, indent=None if name == _INDEX else 2) + "\n")


def _group_path(root: epath.Path, name: str, number: int) -> epath.Path:
    return root / "params" / f"{name}-{number:05d}"


def _summary(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    leaves = [leaf for group in groups for leaf in group.values()]
    dtypes = sorted({leaf["dtype"] for leaf in leaves})
    parameters = sum(int(np.prod(leaf["shape"])) for leaf in leaves)
    return {"keys": len(leaves), "parameters": parameters, "dtype": "+".join(dtypes)}


@contextlib.contextmanager
def new_checkpoint(directory: epath.PathLike, *, overwrite: bool = False) -> Iterator[CheckpointWriter]:
    """Write a checkpoint group by group, then `finish` it; it appears at `directory` when the block ends.

    Raises:
        InputError: `directory` is taken or cannot be written.
    """
    with atomic_directory(directory, marker=_MANIFEST, overwrite=overwrite) as temporary:
        yield CheckpointWriter(temporary)


def save_checkpoint(
    directory: epath.PathLike,
    config: ModelConfig,
    states: Mapping[str, nnx.State],
    *,
    dtype: str | None = None,
    sources: Sequence[Mapping[str, Any]] = (),
    sampling: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Write networks that are in memory, sharded or not; all processes call this together.

    Args:
        directory: local or gs://.
        config: sizes of the networks.
        states: parameters of each network, by its name in `NETWORKS`.
        dtype: cast to this; None keeps every tensor's own.
        sources: entries for the manifest's `sources`.
        sampling: options that sampling with these weights begins with.
        overwrite: replace an existing checkpoint.
        progress: show a bar.

    Raises:
        InputError: `directory` is taken, cannot be written or has no room.
    """
    networks = {name: flat_params(state) for name, state in states.items()}
    total = sum(array.nbytes for params in networks.values() for array in params.values())
    with new_checkpoint(directory, overwrite=overwrite) as writer, _bar("Saving", total, progress) as bar:
        check_space(directory, total)
        for name, params in networks.items():
            for group in plan_groups({key: array.nbytes for key, array in params.items()}):
                writer.add_group(name, {key: params[key].astype(dtype or params[key].dtype) for key in group})
                bar.update(sum(params[key].nbytes for key in group))
        writer.finish(config, sources, sampling)


def read_manifest(directory: epath.PathLike) -> dict[str, Any]:
    """The manifest: `format`, `window_size`, `networks` (keys, parameters, dtype), `sources` (name, sha256, keys).

    Raises:
        InputError: no checkpoint there, a damaged one, or one of a later format.
    """
    root = absolute_path(directory)
    if not (root / _MANIFEST).exists():
        raise InputError(f"{root} holds no checkpoint (no {_MANIFEST}); make one with convert_weights.py.")
    manifest = _read_json(root, _MANIFEST)
    if manifest.get("format") != FORMAT:
        raise InputError(f"{root} has checkpoint format {manifest.get('format')!r}, but this version reads {FORMAT}.")
    return manifest


def manifest_sha256(directory: epath.PathLike) -> str:
    """The hash of the manifest, which tells checkpoints from other sources apart.

    Raises:
        InputError: as `read_manifest`.
    """
    read_manifest(directory)
    return hashlib.sha256((absolute_path(directory) / _MANIFEST).read_bytes()).hexdigest()


def read_config(directory: epath.PathLike) -> ModelConfig:
    """Sizes of the networks in a checkpoint, and its window size.

    Raises:
        InputError: no checkpoint there, or a damaged one.
    """
    read_manifest(directory)
    root = absolute_path(directory)
    return build_config(ModelConfig, _read_json(root, _CONFIG), source=str(root / _CONFIG))


def read_sampling(directory: epath.PathLike) -> dict[str, Any]:
    """The options that sampling with this checkpoint begins with; empty where it says nothing.

    Raises:
        InputError: no checkpoint there, or a damaged one.
    """
    read_manifest(directory)
    root = absolute_path(directory)
    return _read_json(root, _SAMPLING) if (root / _SAMPLING).exists() else {}


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
    with _bar(f"Loading {name}", sum(map(_nbytes, groups)), progress) as bar:
        for number, group in enumerate(groups):
            target = {
                key: jax.ShapeDtypeStruct(shapes[key], np.dtype(dtype or leaf["dtype"]), sharding=place(key))
                for key, leaf in group.items()
            }
            arrays = read_group(directory, name, number, target)
            leaves += [(variables[key][0], variables[key][1].replace(array)) for key, array in arrays.items()]
            bar.update(_nbytes(group))
    return nnx.from_flat_state(leaves)


def stored_groups(
    directory: epath.PathLike, name: str, shapes: Mapping[str, tuple[int, ...]]
) -> list[dict[str, dict[str, Any]]]:
    """For each group of the network `name`, its tensors' `shape` and `dtype` by dotted path.

    Raises:
        InputError: no checkpoint there, a damaged one, or one that does not hold exactly the tensors in `shapes`.
    """
    read_manifest(directory)
    root = absolute_path(directory)
    index = _read_json(root, _INDEX)
    if name not in index:
        raise InputError(
            f"{root} holds no {name}, only {', '.join(index)}; give a complete checkpoint (train_vae.py writes "
            "encoders alone)."
        )
    stored = {key: tuple(leaf["shape"]) for group in index[name] for key, leaf in group.items()}
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
    path = _group_path(absolute_path(directory), name, number)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(path, dict(target))
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise InputError(f"{path} is damaged or incomplete; convert the weights again ({reason}).") from error


def _nbytes(group: Mapping[str, Any]) -> int:
    return sum(int(np.prod(leaf["shape"])) * np.dtype(leaf["dtype"]).itemsize for leaf in group.values())


def _bar(label: str, total: int, progress: bool) -> tqdm:
    return tqdm(total=total, desc=label, unit="B", unit_scale=True, disable=not progress)


def _read_json(root: epath.Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((root / name).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{root / name} cannot be read ({error}); convert the weights again.") from None
    if not isinstance(content, dict):
        raise InputError(f"{root / name} is damaged: it holds no object; convert the weights again.")
    return content
