"""Writing a checkpoint, group by group."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx

from mimicmotion_jax.checkpoint.checksums import write_checksums
from mimicmotion_jax.checkpoint.files import CONFIG, FORMAT, INDEX, MANIFEST, SAMPLING, byte_bar, group_path
from mimicmotion_jax.checkpoint.restoring import ignore_left_overs
from mimicmotion_jax.config import to_dict
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.atomic_files import atomic_directory, check_space

Key = TypeVar("Key")

GROUP_BYTES = 2**26
CHUNK_BYTES = 2**22  # read and written in parallel; small buffers fragment the heap less


def flat_params(state: nnx.State) -> dict[str, Any]:
    """Flatten `state` to a dictionary by dotted path (`down_blocks.0.resnets.1.norm1.scale`), in path order."""
    return {".".join(map(str, path)): variable.get_value() for path, variable in nnx.to_flat_state(state)}


def plan_groups(sizes: Mapping[Key, int], limit: int = GROUP_BYTES) -> list[list[Key]]:
    """Split items of these `sizes` in bytes, in order, into groups of at most `limit`; a larger item is a group."""
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
        ignore_left_overs()
        groups = self._index.setdefault(name, [])
        with ocp.StandardCheckpointer() as checkpointer:
            chunks = dict.fromkeys(arrays, ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES))
            ready = jax.block_until_ready(dict(arrays))  # see `out_of_memory.fetch`
            checkpointer.save(group_path(self._root, name, len(groups)), ready, save_args=chunks)
        groups.append({key: {"shape": list(array.shape), "dtype": str(array.dtype)} for key, array in arrays.items()})

    def finish(
        self, config: ModelConfig, sources: Sequence[Mapping[str, Any]], sampling: Mapping[str, Any] | None = None
    ) -> None:
        """Write index, configuration and sampling options, and the manifest last, without which it is no checkpoint."""
        if jax.process_index() != 0:
            return
        # Orbax writes the absolute path of the temporary folder into this file, whose existence alone matters.
        for marker in (self._root / "params").glob("*/commit_success.txt"):
            marker.write_text("committed\n")
        write_checksums(self._root / "params")
        networks = {name: _summary(groups) for name, groups in self._index.items()}
        manifest = {"format": FORMAT, "window_size": config.window_size, "networks": networks, "sources": list(sources)}
        files = {INDEX: self._index, CONFIG: to_dict(config), SAMPLING: sampling, MANIFEST: manifest}
        for name, content in files.items():
            if content:
                (self._root / name).write_text(json.dumps(content, indent=None if name == INDEX else 2) + "\n")


def _summary(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    leaves = [leaf for group in groups for leaf in group.values()]
    dtypes = sorted({leaf["dtype"] for leaf in leaves})
    parameters = sum(int(np.prod(leaf["shape"])) for leaf in leaves)
    return {"keys": len(leaves), "parameters": parameters, "dtype": "+".join(dtypes)}


@contextlib.contextmanager
def new_checkpoint(directory: epath.PathLike, *, overwrite: bool = False) -> Iterator[CheckpointWriter]:
    """Write a checkpoint group by group, then `finish` it; it appears at `directory` when the block ends.

    Raises:
        InputError: `directory` exists already or cannot be written to.
    """
    with atomic_directory(directory, marker=MANIFEST, overwrite=overwrite) as temporary:
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
    """Write networks that are in memory, sharded or not; to be called by all processes together.

    Args:
        directory: local or gs://.
        config: sizes of the networks.
        states: parameters of each network, by its name in `NETWORKS`.
        dtype: cast to this; None keeps every tensor's own.
        sources: entries for the manifest's `sources`.
        sampling: default sampling options.
        overwrite: replace an existing checkpoint.
        progress: show a bar.

    Raises:
        InputError: `directory` exists already, cannot be written to or has no room.
    """
    networks = {name: flat_params(state) for name, state in states.items()}
    total = sum(array.nbytes for params in networks.values() for array in params.values())
    with new_checkpoint(directory, overwrite=overwrite) as writer, byte_bar("Saving", total, progress) as bar:
        check_space(directory, total)
        for name, params in networks.items():
            for group in plan_groups({key: array.nbytes for key, array in params.items()}):
                writer.add_group(name, {key: params[key].astype(dtype or params[key].dtype) for key in group})
                bar.update(sum(params[key].nbytes for key in group))
        writer.finish(config, sources, sampling)
