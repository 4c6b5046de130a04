"""Reading a dataset that `mimicmotion prepare` wrote: its metadata, and its records by number."""

import json
from typing import Any

import pydantic
from etils import epath

from mimicmotion_jax.data.record import NAME, VERSION, PoseVideo
from mimicmotion_jax.runtime.atomic_files import absolute_path
from mimicmotion_jax.runtime.errors import InputError, root_cause

EXTRA = 'pip install "mimicmotion_jax[train]"'


class RecordInfo(pydantic.BaseModel):
    """Description of a record, known without reading it."""

    name: str
    num_frames: int
    width: int
    height: int
    fps: float


class EncodingInfo(pydantic.BaseModel):
    """Description of the stored encodings: size of the frames in pixels, shapes, and the networks that made them."""

    width: int
    height: int
    latent_shape: tuple[int, int, int]
    embedding_size: int
    checkpoint: str
    """SHA-256 of the checkpoint's manifest.json."""


class DatasetInfo(pydantic.BaseModel):
    """Metadata of a dataset, stored in `metadata.json` beside its shards."""

    contents: str
    """Hash that changes whenever a record does."""
    options: dict[str, Any]
    """Options of the preparation."""
    encodings: EncodingInfo | None
    records: list[RecordInfo]
    """In the order of the shards."""


def records_path(root: epath.PathLike) -> epath.Path:
    """Return the folder of the dataset's records in this version's format."""
    return absolute_path(root) / NAME / VERSION


def read_info(root: epath.PathLike) -> DatasetInfo:
    """Read a dataset's metadata.

    Raises:
        InputError: no dataset, one of another version, or a damaged one.
    """
    root, path = absolute_path(root), records_path(root)
    if not (path / "metadata.json").exists():
        parent = root / NAME
        others = sorted(p.name for p in parent.iterdir() if p.name[:1].isdigit()) if parent.exists() else []
        if others:
            raise InputError(
                f"{root} holds a dataset of format {others[-1]}, but this version reads {VERSION}; prepare the videos "
                "again with mimicmotion prepare."
            )
        raise InputError(f"there is no dataset in {root}; make one with mimicmotion prepare.")
    try:
        info = DatasetInfo.model_validate(json.loads((path / "metadata.json").read_text()))
        content = json.loads((path / "dataset_info.json").read_text())
        found = str(content["version"])
        stored = sum(int(length) for length in content["splits"][0]["shardLengths"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        raise InputError(f"the dataset in {root} is damaged or of another kind; prepare the videos again.") from None
    if found != VERSION or stored != len(info.records):
        raise InputError(
            f"{root} holds {stored} records of format {found} where {len(info.records)} of {VERSION} should be; "
            "prepare the videos again."
        )
    return info


class Records:
    """Records of a dataset by number; can be sent to another process.

    Raises:
        InputError: TFDS or files are missing; when reading, a damaged record.
    """

    def __init__(self, root: epath.PathLike):
        try:
            import tensorflow_datasets as tfds
        except ImportError:
            raise InputError(f"reading training data needs TensorFlow Datasets; run {EXTRA}.") from None
        self._root = str(root)
        try:
            builder: Any = tfds.builder_from_directory(records_path(root))
            self._source = builder.as_data_source(split="train")
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"the dataset in {root} cannot be read ({root_cause(error)}).") from None

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, number: int) -> PoseVideo:
        if not 0 <= number < len(self):
            raise IndexError(f"there is no record {number}")
        try:
            return PoseVideo.from_example(self._source[number])
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise InputError(
                f"record {number} of {self._root} is damaged ({root_cause(error)}); prepare the videos again."
            ) from None
