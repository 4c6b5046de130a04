"""Files of a checkpoint: where they are, their names, and validation of the JSON among them, which people read, edit
and damage."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated, Any, TypeVar

import jax.numpy as jnp
import numpy as np
import pydantic
from etils import epath
from tqdm import tqdm

from mimicmotion_jax.config import first_mistake
from mimicmotion_jax.runtime.atomic_files import absolute_path
from mimicmotion_jax.runtime.errors import InputError

T = TypeVar("T")

FORMAT = 1
MANIFEST = "manifest.json"
CONFIG = "config.json"
SAMPLING = "sampling.json"
INDEX = "params/index.json"
ADVICE = "copy or make the checkpoint again"  # for one that is damaged
PACKAGED = Path(__file__).resolve().parents[1] / "weights"
"""Folder of the checkpoints that travel in the package: "small", and "small-student", which is distilled from it."""


def locate(directory: str | os.PathLike[str]) -> epath.Path:
    """Folder of a checkpoint, absolute or gs://; the package has those of `PACKAGED` where no folder has their name."""
    path = absolute_path(directory)
    packaged = PACKAGED / os.fspath(directory)
    return epath.Path(packaged) if is_packaged(packaged) and not path.exists() else path


def is_packaged(checkpoint: str | os.PathLike[str]) -> bool:
    """Say whether a folder is that of a checkpoint in the package."""
    return Path(checkpoint).parent == PACKAGED and (Path(checkpoint) / MANIFEST).exists()


def _known_dtype(name: str) -> str:
    try:
        known = jnp.issubdtype(np.dtype(name), jnp.floating)
    except TypeError:
        known = False
    if not known:
        raise ValueError(f"{name!r} is not a floating-point type")
    return name


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """Shape and dtype of a tensor in the index."""

    shape: tuple[pydantic.NonNegativeInt, ...]
    dtype: Annotated[str, pydantic.AfterValidator(_known_dtype)]

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


Index = dict[str, list[dict[str, StoredTensor]]]
"""The groups of each network: tensors by dotted path."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Content of manifest.json: origin and size of the weights."""

    format: int
    window_size: int
    networks: dict[str, dict[str, Any]]
    sources: list[dict[str, Any]]


def read_object(path: epath.Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        InputError: no such file, or something else in it.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise InputError(f"{path} cannot be read ({reason}); {ADVICE}.") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged: it holds no JSON object; {ADVICE}.")
    return content


def check_content(kind: type[T], content: Any, path: epath.Path) -> T:
    """Validate the content of `path` as a `kind`.

    Raises:
        InputError: naming the first thing that is wrong.
    """
    try:
        return pydantic.TypeAdapter(kind).validate_python(content)
    except pydantic.ValidationError as error:
        where, what = first_mistake(error)
        raise InputError(f"{path} is damaged ({where}: {what}); {ADVICE}.") from None


def group_path(root: epath.Path, name: str, number: int) -> epath.Path:
    """Folder of group `number` of a network."""
    return root / "params" / f"{name}-{number:05d}"


def byte_bar(label: str, total: int, progress: bool) -> tqdm:
    """Progress bar of `total` bytes."""
    return tqdm(total=total, desc=label, unit="B", unit_scale=True, disable=not progress)
