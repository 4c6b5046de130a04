"""Files and folders of output, local or gs://, that appear whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator

import jax
from etils import epath
from jax.experimental import multihost_utils

from mimicmotion_jax.errors import InputError

_SPACE_MARGIN = 1.02  # indices and metadata beside the arrays


def absolute_path(directory: epath.PathLike) -> epath.Path:
    """`directory` as orbax wants it; a remote path is one already."""
    path = epath.Path(directory).expanduser()
    return path if "://" in str(path) else path.resolve()


def write_file(path: epath.PathLike, content: bytes) -> None:
    """Write a file, or replace it, in one step; where that fails, an earlier one is untouched.

    Raises:
        OSError: no such folder, no permission, no room.
    """
    path = epath.Path(path)
    unfinished = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(directory: epath.PathLike, *, marker: str, overwrite: bool = False) -> Iterator[epath.Path]:
    """A temporary folder that becomes `directory` when the block ends, and vanishes when it fails.

    Args:
        directory: must not exist or be empty, unless `overwrite`.
        marker: a file that every folder of this kind has; only a folder that has it is ever overwritten.
        overwrite: replace an existing folder.

    Raises:
        InputError: `directory` is taken or cannot be written.
    """
    target = absolute_path(directory)
    temporary = target.parent / f".{target.name}.partial"
    first = jax.process_index() == 0
    try:
        if target.exists() and not target.is_dir():
            raise InputError(f"{target} is a file; choose a folder as output.")
        if target.exists() and any(target.iterdir()):
            if not overwrite:
                raise InputError(f"{target} exists already; choose another output or say --overwrite.")
            if not (target / marker).exists():
                raise InputError(f"{target} is no earlier output of this (no {marker}), so it is not overwritten.")
        if first:
            temporary.rmtree(missing_ok=True)
            temporary.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"cannot write to {target}: {error.strerror or error}; choose another output.") from None
    multihost_utils.sync_global_devices(f"created {temporary}")
    try:
        yield temporary
    except BaseException:
        if first:
            temporary.rmtree(missing_ok=True)
        raise
    multihost_utils.sync_global_devices(f"filled {temporary}")
    if first:
        target.rmtree(missing_ok=True)
        temporary.rename(target)
    multihost_utils.sync_global_devices(f"renamed {temporary}")


def check_space(directory: epath.PathLike, needed: int) -> None:
    """See that `needed` bytes fit where `directory` is to be; its parent must exist. Remote storage has no end.

    Raises:
        InputError: they do not fit.
    """
    target = absolute_path(directory)
    if "://" in str(target):
        return
    free = shutil.disk_usage(target.parent).free
    if free < needed * _SPACE_MARGIN:
        raise InputError(
            f"the weights take {needed / 1e9:.1f} GB and there is room for {free / 1e9:.1f} GB at {target.parent}; "
            "free some or choose another output."
        )
