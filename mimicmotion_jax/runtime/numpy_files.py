"""Bounded reading of NumPy's files: sizes are checked in their headers, before anything is expanded or allocated."""

import io
import math
import zipfile
import zlib
from collections.abc import Collection
from typing import IO, Any

import numpy as np
from etils import epath

from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.plain_pickle import load_pickle

MAX_BYTES = 2**30
"""Largest array file, and largest sum of the expanded arrays of a `.npz`."""

_MALFORMED = (
    *(ValueError, EOFError, TypeError, KeyError, AttributeError, RuntimeError, SyntaxError, OverflowError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, OSError, NotImplementedError),
)


def read_npz(
    file: IO[bytes], name: str, keys: Collection[str] | None = None, max_bytes: int = MAX_BYTES
) -> dict[str, Any]:
    """Read arrays of a `.npz` file; an array of objects comes as the plain containers in it.

    Args:
        file: the opened file.
        name: its name in messages.
        keys: arrays to read, if they are there; None reads all.
        max_bytes: most that these arrays may take together.

    Raises:
        InputError: no such file, a damaged one, arrays of more than `max_bytes` together, or objects that are more
            than containers of numbers.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            wanted = {key: info for key, info in members.items() if keys is None or key in keys}
            total = sum(info.file_size for info in wanted.values())
            if total > max_bytes:
                size = f"{total / 2**20:,.0f} MiB"
                raise InputError(f"{name} expands to {size} of arrays, more than {max_bytes / 2**20:,.0f}; split it.")
            return {key: _read_member(archive, info, name) for key, info in wanted.items()}
    except InputError:
        raise
    except _MALFORMED:
        raise InputError(f"{name} is not a readable .npz; it may be cut short.") from None


def read_npy(content: bytes, name: str) -> Any:
    """Read the array of a `.npy` file; an array of objects comes as the plain containers in it.

    Raises:
        InputError: not such a file, one that promises more than it holds, or objects that are more than containers of
            numbers.
    """
    try:
        return _read_array(io.BytesIO(content), len(content), name)
    except InputError:
        raise
    except _MALFORMED:
        raise InputError(f"{name} is not a readable .npy array; it may be cut short.") from None


def read_bytes(path: epath.Path, limit: int = MAX_BYTES) -> bytes:
    """Read a file of at most `limit` bytes.

    Raises:
        InputError: a longer one, or one that cannot be read.
    """
    try:
        size = path.stat().length
        if size > limit:
            raise InputError(f"{path} has {size / 2**20:.0f} MiB, more than {limit / 2**20:.0f}; split it.")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Any:
    with archive.open(info) as member:
        return _read_array(member, info.file_size, name)


def _read_array(stream: IO[bytes], size: int, name: str) -> Any:
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if dtype.hasobject:
        return load_pickle(stream.read(size), name)
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes > size:
        raise ValueError("the header promises more than there is")
    array = np.frombuffer(stream.read(num_bytes), dtype)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
