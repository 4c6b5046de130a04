"""Names of a checkpoint's files, and what the JSON among them must hold: people read, change and damage it."""

import dataclasses
import json
from typing import Annotated, Any, TypeVar

import jax.numpy as jnp
import numpy as np
import pydantic
from etils import epath
from tqdm import tqdm

from mimicmotion_jax.config import first_mistake
from mimicmotion_jax.runtime.errors import InputError

T = TypeVar("T")

FORMAT = 1
MANIFEST = "manifest.json"
CONFIG = "config.json"
SAMPLING = "sampling.json"
INDEX = "params/index.json"


def _known_dtype(name: str) -> str:
    try:
        known = jnp.issubdtype(np.dtype(name), jnp.floating)
    except TypeError:
        known = False
    if not known:
        raise ValueError(f"{name!r} is no floating-point type")
    return name


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """What the index says of a tensor."""

    shape: tuple[pydantic.NonNegativeInt, ...]
    dtype: Annotated[str, pydantic.AfterValidator(_known_dtype)]

    @property
    def nbytes(self) -> int:
        """Of the array."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


Index = dict[str, list[dict[str, StoredTensor]]]
"""The groups of each network: tensors by dotted path."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Where the weights came from, in this version's format."""

    format: int
    window_size: int
    networks: dict[str, dict[str, Any]]
    sources: list[dict[str, Any]]


def read_object(path: epath.Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InputError: no such file, or something else in it.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); convert the weights again.") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged: it holds no object; convert the weights again.")
    return content


def check_content(kind: type[T], content: Any, path: epath.Path) -> T:
    """`content`, read from `path`, as a `kind`.

    Raises:
        InputError: it is none; the message names the first thing that is wrong.
    """
    try:
        return pydantic.TypeAdapter(kind).validate_python(content)
    except pydantic.ValidationError as error:
        where, what = first_mistake(error)
        raise InputError(f"{path} is damaged ({where}: {what}); convert the weights again.") from None


def group_path(root: epath.Path, name: str, number: int) -> epath.Path:
    """Folder of the network's group `number`."""
    return root / "params" / f"{name}-{number:05d}"


def byte_bar(label: str, total: int, progress: bool) -> tqdm:
    """A progress bar of `total` bytes."""
    return tqdm(total=total, desc=label, unit="B", unit_scale=True, disable=not progress)
