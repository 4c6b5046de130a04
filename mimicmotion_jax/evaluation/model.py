"""A checkpoint as an evaluation sees it: by its contents, which every generated video is recorded with."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from etils import epath
from tqdm import tqdm

from mimicmotion_jax import checkpoint as checkpoints
from mimicmotion_jax.evaluation.records import sha256_files
from mimicmotion_jax.pipeline import DTypeName
from mimicmotion_jax.runtime.atomic_files import absolute_path


@dataclass(frozen=True)
class Model:
    """A checkpoint by its contents, and how it is to be run."""

    directory: Path
    manifest_sha256: str
    weights_sha256: str
    """Of all files: the manifests of two steps of one training need not differ."""
    window_size: int
    size_multiple: int
    """What both sides of a video must be multiples of, pixels."""
    dtype: DTypeName | None
    num_devices: int | None


def open_model(
    directory: Path, dtype: DTypeName | None = None, num_devices: int | None = None, progress: bool = True
) -> Model:
    """Look a checkpoint over; its weights are read for their hash, not loaded.

    Raises:
        InputError: no checkpoint there.
    """
    root = absolute_path(directory)
    config = checkpoints.read_config(root)
    files = sorted((str(path.relative_to(root)), path) for path in _files(root))
    return Model(
        directory,
        checkpoints.manifest_sha256(root),
        sha256_files(tqdm(files, "hashing the weights", unit="file", disable=not progress)),
        config.window_size,
        config.size_multiple,
        dtype,
        num_devices,
    )


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files(path)
        else:
            yield path
